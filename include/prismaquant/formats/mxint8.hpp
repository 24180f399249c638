/// @file
/// MXINT8: 8-bit fixed-point elements in groups of 32 along a row, one power-of-two scale per group. Source: OCP MX
/// v1.0.
#pragma once

#include <string_view>

#include "prismaquant/formats/format.hpp"
#include "prismaquant/formats/integer.hpp"

namespace prismaquant {

/// value = int8(code) * 2^-6 * 2^(scale - 127). The amax rule raises the exponent only where amax would round past
/// 127/64, as compressed-tensors does for MXFP6.
struct mxint8 {
  static constexpr std::string_view name = "mxint8";
  using element = mxint8_element;
  using scale = e8m0_scale<element::max_exponent, 6>;
  using block_shape = block<1, 32>;
  using layout = plain_words<std::uint8_t>;
  using extra = no_extra;
  static constexpr bool has_global_scale = false;
  static constexpr bool ragged_blocks = false;
};

static_assert(format<mxint8> && stored_bytes<mxint8>(1, 32) == 33);

}  // namespace prismaquant
