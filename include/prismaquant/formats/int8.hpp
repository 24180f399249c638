/// @file
/// INT8 with one scale per output channel (weights) or per token (activations).
/// Source: compressed-tensors (`int-quantized`), vLLM (`dynamic_scaled_int8_quant`).
#pragma once

#include <string_view>

#include "prismaquant/formats/format.hpp"
#include "prismaquant/formats/integer.hpp"

namespace prismaquant {

/// value = int8(code) * scale of the row.
template <class Element, class Scale>
struct int8 {
  using element = Element;
  using scale = Scale;
  using block_shape = block<1, 0>;
  using layout = plain_words<std::uint8_t>;
  using extra = no_extra;
  static constexpr bool has_global_scale = false;
  static constexpr bool ragged_blocks = true;
};

/// -128 .. 127 under the bfloat16 scale amax / 127.5.
struct int8_channel : int8<int8_element, bf16_scale> {
  static constexpr std::string_view name = "int8_channel";
};
/// -127 .. 127 under the float32 scale amax / 127, as vLLM quantizes activations. (compressed-tensors' emulation uses
/// amax / 127.5 in the dtype of the activations.)
struct int8_token : int8<symmetric_int8_element, float32_scale> {
  static constexpr std::string_view name = "int8_token";
};

static_assert(format<int8_channel> && stored_bytes<int8_channel>(2, 100) == 200 + 4);
static_assert(format<int8_token> && stored_bytes<int8_token>(2, 100) == 200 + 8);

}  // namespace prismaquant
