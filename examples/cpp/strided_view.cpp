// Quantize parts of a larger matrix and its transpose where they lie: a view is a pointer, a shape and two strides.
// prints: slice: same bytes as its copy, transpose: same bytes as its copy
#include <cstdio>
#include <prismaquant/codec/codec.hpp>
#include <prismaquant/formats/mxfp4.hpp>
#include <vector>

namespace pq = prismaquant;

// Encodes a view, and a dense copy of it.
bool same_bytes_as_its_copy(pq::matrix_view<float const> strided) {
  std::vector<float> copy;
  for (std::size_t r = 0; r < strided.rows; ++r)
    for (std::size_t c = 0; c < strided.columns; ++c) copy.push_back(strided(r, c));
  auto const dense = pq::view(std::span<float const>(copy), strided.rows, strided.columns);
  auto const a = pq::encode<pq::mxfp4>(strided), b = pq::encode<pq::mxfp4>(dense);
  return a.codes() == b.codes() && a.scales() == b.scales();
}

int main() {
  std::vector<float> weights(96 * 64);
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(i * i % 1009) - 500.0f;
  pq::matrix_view<float const> const whole{weights.data(), 96, 64, 64, 1};

  auto const slice = whole.part(16, 32, 80, 32);  // rows 16 to 95, columns 32 to 63
  pq::matrix_view<float const> const transpose{whole.data, whole.columns, whole.rows, whole.column_stride,
                                               whole.row_stride};
  std::printf("slice: %s bytes as its copy, transpose: %s bytes as its copy\n",
              same_bytes_as_its_copy(slice) ? "same" : "other", same_bytes_as_its_copy(transpose) ? "same" : "other");
}
