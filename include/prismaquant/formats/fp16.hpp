/// @file
/// FP16 (IEEE binary16): the element itself, without scales. Exact for float16 weights; larger ones saturate at 65504.
#pragma once

#include <string_view>

#include "prismaquant/formats/format.hpp"

namespace prismaquant {

/// value = float16(code).
struct fp16 {
  static constexpr std::string_view name = "fp16";
  using element = fp16_element;
  using scale = no_scale;
  using block_shape = block<1, 1>;
  using layout = plain_words<std::uint16_t>;
  using extra = no_extra;
  static constexpr bool has_global_scale = false;
  static constexpr bool ragged_blocks = true;
};

static_assert(format<fp16> && stored_bytes<fp16>(3, 5) == 30);

}  // namespace prismaquant
