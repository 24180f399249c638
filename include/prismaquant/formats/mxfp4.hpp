/// @file
/// MXFP4: E2M1 elements in groups of 32 along a row, one power-of-two scale per group. Source: OCP MX v1.0.
#pragma once

#include <string_view>

#include "prismaquant/formats/format.hpp"

namespace prismaquant {

/// value = E2M1(code) * 2^(scale - 127).
struct mxfp4 {
  static constexpr std::string_view name = "mxfp4";
  using element = e2m1;
  using scale = e8m0_scale<e2m1::max_exponent>;
  using block_shape = block<1, 32>;
  using layout = packed_nibbles;
  using extra = no_extra;
  static constexpr bool has_global_scale = false;
  static constexpr bool ragged_blocks = false;
};

static_assert(format<mxfp4> && stored_bytes<mxfp4>(1, 32) == 17);

}  // namespace prismaquant
