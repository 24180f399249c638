// Quantize xtensor containers and strided views of them, without copies.
// prints: even rows of 64 x 256: 8448 bytes instead of 32768, mean squared error below 0.001: yes
#include <cstdio>
#include <prismaquant/adapt/xtensor.hpp>
#include <prismaquant/codec/codec.hpp>
#include <prismaquant/formats/mxfp8.hpp>

#if __has_include(<xtensor/containers/xtensor.hpp>)  // folders since 0.26
#include <xtensor/containers/xtensor.hpp>
#include <xtensor/generators/xrandom.hpp>
#else
#include <xtensor/xmath.hpp>
#include <xtensor/xrandom.hpp>
#include <xtensor/xtensor.hpp>
#endif

namespace pq = prismaquant;

int main() {
  xt::random::seed(1);
  xt::xtensor<float, 2> const weights = xt::random::randn<float>({64, 256});
  auto const even = xt::view(weights, xt::range(0, 64, 2), xt::all());  // borrows `weights`

  auto const quantized = pq::encode<pq::mxfp8_e4m3>(pq::view(even));
  xt::xtensor<float, 2> decoded = xt::zeros<float>({32, 256});
  pq::decode<pq::mxfp8_e4m3>(quantized.view(), pq::view(decoded));

  double const error = xt::mean(xt::square(decoded - even))();
  std::printf("even rows of 64 x 256: %zu bytes instead of %zu, mean squared error below 0.001: %s\n",
              pq::stored_bytes<pq::mxfp8_e4m3>(32, 256), decoded.size() * sizeof(float), error < 0.001 ? "yes" : "no");
}
