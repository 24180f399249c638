// Quantize from and into memory that the program owns: plain pointers, nothing allocated by the library.
// prints: 512 bytes of codes, 64 of scales, largest error 0.125
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <prismaquant/codec/codec.hpp>
#include <prismaquant/formats/nvfp4.hpp>

namespace pq = prismaquant;

int main() {
  constexpr std::size_t rows = 8, columns = 128;
  static float weights[rows * columns], decoded[rows * columns];
  for (std::size_t i = 0; i < rows * columns; ++i) weights[i] = static_cast<float>(i % 17) / 8.0f - 1.0f;

  constexpr auto stored = pq::stored<pq::nvfp4>(rows, columns);
  static std::uint8_t codes[stored.code_rows * stored.code_columns], scales[stored.scale_rows * stored.scale_columns];
  pq::quantized_view<pq::nvfp4> quantized{rows, columns, {}, {}, 1.0f, {}};
  quantized.codes = {codes, stored.code_rows, stored.code_columns, stored.code_columns, 1};  // pointer, shape, strides
  quantized.scales = {scales, stored.scale_rows, stored.scale_columns, stored.scale_columns, 1};
  quantized.global_scale = pq::nvfp4::global_scale(1.0f, 448.0f);  // 1 is the largest magnitude

  pq::encode_into<pq::nvfp4>(pq::matrix_view<float const>{weights, rows, columns, columns, 1}, quantized,
                             pq::serial_executor{});
  pq::decode<pq::nvfp4>(quantized, pq::matrix_view<float>{decoded, rows, columns, columns, 1});

  float largest = 0.0f;
  for (std::size_t i = 0; i < rows * columns; ++i) largest = std::max(largest, std::abs(decoded[i] - weights[i]));
  std::printf("%zu bytes of codes, %zu of scales, largest error %.3f\n", sizeof codes, sizeof scales, largest);
}
