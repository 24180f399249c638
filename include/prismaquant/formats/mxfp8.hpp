/// @file
/// MXFP8: E4M3 or E5M2 elements in groups of 32 along a row, one power-of-two scale per group. Source: OCP MX v1.0;
/// storage as in compressed-tensors (`mxfp8-quantized`, which has E4M3 only).
#pragma once

#include <string_view>

#include "prismaquant/formats/format.hpp"

namespace prismaquant {

/// value = Element(code) * Scale(scale).
template <class Element, class Scale>
struct mxfp8 {
  using element = Element;
  using scale = Scale;
  using block_shape = block<1, 32>;
  using layout = plain_words<std::uint8_t>;
  using extra = no_extra;
  static constexpr bool has_global_scale = false;
  static constexpr bool ragged_blocks = false;
};

struct mxfp8_e4m3 : mxfp8<e4m3, e8m0_scale<e4m3::max_exponent>> {
  static constexpr std::string_view name = "mxfp8_e4m3";
};
struct mxfp8_e5m2 : mxfp8<e5m2, e8m0_scale<e5m2::max_exponent, 2>> {
  static constexpr std::string_view name = "mxfp8_e5m2";
};

static_assert(format<mxfp8_e4m3> && stored_bytes<mxfp8_e4m3>(1, 32) == 33);
static_assert(format<mxfp8_e5m2> && stored_bytes<mxfp8_e5m2>(1, 32) == 33);

}  // namespace prismaquant
