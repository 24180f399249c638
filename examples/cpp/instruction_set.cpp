// Link prismaquant::kernels and the widest instruction set of the processor is chosen at run time; the bytes are the
// same for all. The environment variable PRISMAQUANT_ISA forces one.
// prints: in use: [a-z0-9_]+; available: scalar.*; same bytes
#include <cstdio>
#include <prismaquant/codec/codec.hpp>
#include <prismaquant/formats/nvfp4.hpp>
#include <vector>

namespace pq = prismaquant;

int main() {
  std::vector<float> weights(64 * 256);
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(i * i % 1009) - 500.0f;
  auto const view = pq::view(std::span<float const>(weights), 64, 256);

  std::printf("in use: %s; available:", pq::active_kernels().isa);
  auto const widest = pq::encode<pq::nvfp4>(view);
  bool same = true;
  for (auto const& isa : pq::available_isas()) {
    std::printf(" %s", isa.c_str());
    pq::use_isa(isa);  // for tests and benchmarks
    same = same && pq::encode<pq::nvfp4>(view).codes() == widest.codes();
  }
  std::printf("; %s bytes\n", same ? "same" : "other");
}
