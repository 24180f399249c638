// Quantize a matrix to NVFP4, decode it, and print what was lost.
// prints: 9220 bytes, squared error 45.9057
#include <cmath>
#include <cstdio>
#include <prismaquant/prismaquant.hpp>
#include <vector>

int main() {
  namespace pq = prismaquant;
  std::vector<float> weights(256 * 64);
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = std::sin(static_cast<float>(i));

  auto const view = pq::view(std::span<float const>(weights), 256, 64);  // borrowed: pointer, shape, strides
  auto const solved = pq::solve<pq::scale_sweep, pq::nvfp4>(view, {}, pq::thread_executor(2));

  std::vector<float> decoded(weights.size());
  pq::decode<pq::nvfp4>(solved.quantized.view(), pq::view(std::span<float>(decoded), 256, 64));
  std::printf("%zu bytes, squared error %.4f\n", pq::stored_bytes<pq::nvfp4>(256, 64), solved.report.squared_error);
}
