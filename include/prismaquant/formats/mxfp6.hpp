/// @file
/// MXFP6: E2M3 or E3M2 elements in groups of 32 along a row, one power-of-two scale per group. Source: OCP MX v1.0;
/// storage as in compressed-tensors (`mxfp6-pack-quantized`, which has E2M3 only).
#pragma once

#include <string_view>

#include "prismaquant/formats/format.hpp"

namespace prismaquant {

/// value = Element(code) * 2^(scale - 127); `Mantissa` is the number of mantissa bits of the element.
template <class Element, int Mantissa>
struct mxfp6 {
  using element = Element;
  using scale = e8m0_scale<Element::max_exponent, Mantissa>;
  using block_shape = block<1, 32>;
  using layout = packed_sextets;
  using extra = no_extra;
  static constexpr bool has_global_scale = false;
  static constexpr bool ragged_blocks = false;
};

struct mxfp6_e2m3 : mxfp6<e2m3, 3> {
  static constexpr std::string_view name = "mxfp6_e2m3";
};
struct mxfp6_e3m2 : mxfp6<e3m2, 2> {
  static constexpr std::string_view name = "mxfp6_e3m2";
};

static_assert(format<mxfp6_e2m3> && stored_bytes<mxfp6_e2m3>(1, 32) == 25);
static_assert(format<mxfp6_e3m2> && stored_bytes<mxfp6_e3m2>(3, 64) == 3 * 50);

}  // namespace prismaquant
