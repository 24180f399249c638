/// @file
/// INT4 in groups of 32, 64 or 128 along a row, symmetric or with a zero point per group.
/// Source: compressed-tensors (`pack-quantized`).
#pragma once

#include <string_view>

#include "prismaquant/formats/format.hpp"
#include "prismaquant/formats/integer.hpp"

namespace prismaquant {

/// value = (int4(code) - int4(zero point)) * scale; `Extra` says whether there are zero points.
template <std::size_t Group, class Extra>
struct int4 {
  using element = int4_element;
  using scale = bf16_scale;
  using block_shape = block<1, Group>;
  using layout = packed_int32_nibbles;
  using extra = Extra;
  static constexpr bool has_global_scale = false;
  static constexpr bool ragged_blocks = false;
};

struct int4_g32 : int4<32, no_extra> {
  static constexpr std::string_view name = "int4_g32";
};
struct int4_g64 : int4<64, no_extra> {
  static constexpr std::string_view name = "int4_g64";
};
struct int4_g128 : int4<128, no_extra> {
  static constexpr std::string_view name = "int4_g128";
};
struct int4_g32_asym : int4<32, packed_zero_points> {
  static constexpr std::string_view name = "int4_g32_asym";
};
struct int4_g64_asym : int4<64, packed_zero_points> {
  static constexpr std::string_view name = "int4_g64_asym";
};
struct int4_g128_asym : int4<128, packed_zero_points> {
  static constexpr std::string_view name = "int4_g128_asym";
};

static_assert(format<int4_g32> && stored_bytes<int4_g32>(3, 64) == 3 * (32 + 4));
static_assert(format<int4_g128_asym> && stored_bytes<int4_g128_asym>(9, 256) == 9 * (128 + 4) + 2 * 2 * 4);

}  // namespace prismaquant
