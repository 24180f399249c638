/// @file
/// BF16: the element itself, without scales. Exact for bfloat16 weights.
#pragma once

#include <string_view>

#include "prismaquant/formats/format.hpp"

namespace prismaquant {

/// value = bfloat16(code).
struct bf16 {
  static constexpr std::string_view name = "bf16";
  using element = bf16_element;
  using scale = no_scale;
  using block_shape = block<1, 1>;
  using layout = plain_words<std::uint16_t>;
  using extra = no_extra;
  static constexpr bool has_global_scale = false;
  static constexpr bool ragged_blocks = true;
};

static_assert(format<bf16> && stored_bytes<bf16>(3, 5) == 30);

}  // namespace prismaquant
