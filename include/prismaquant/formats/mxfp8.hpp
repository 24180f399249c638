/// @file
/// MXFP8 with E4M3 elements in groups of 32 along a row, one power-of-two scale per group. Source: OCP MX v1.0.
#pragma once

#include <string_view>

#include "prismaquant/formats/format.hpp"

namespace prismaquant {

/// value = E4M3(code) * 2^(scale - 127).
struct mxfp8_e4m3 {
  static constexpr std::string_view name = "mxfp8_e4m3";
  using element = e4m3;
  using scale = e8m0_scale<e4m3::max_exponent>;
  using block_shape = block<1, 32>;
  using layout = plain_words<std::uint8_t>;
  static constexpr bool has_global_scale = false;
  static constexpr bool ragged_blocks = false;
};

static_assert(format<mxfp8_e4m3> && stored_bytes<mxfp8_e4m3>(1, 32) == 33);

}  // namespace prismaquant
