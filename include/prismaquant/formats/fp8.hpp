/// @file
/// FP8 E4M3 with one bfloat16 scale per output channel, per tensor, or per 128 x 128 block.
/// Source: OCP 8-bit Floating Point v1.0; storage as in compressed-tensors (`float-quantized`).
#pragma once

#include <string_view>

#include "prismaquant/formats/format.hpp"

namespace prismaquant {

/// value = E4M3(code) * scale of the block; `Block` says how far a scale reaches.
template <class Block>
struct fp8_e4m3 {
  using element = e4m3;
  using scale = bf16_scale;
  using block_shape = Block;
  using layout = plain_words<std::uint8_t>;
  static constexpr bool has_global_scale = false;
  static constexpr bool ragged_blocks = true;
};

struct fp8_e4m3_channel : fp8_e4m3<block<1, 0>> {
  static constexpr std::string_view name = "fp8_e4m3_channel";
};
struct fp8_e4m3_tensor : fp8_e4m3<block<0, 0>> {
  static constexpr std::string_view name = "fp8_e4m3_tensor";
};
struct fp8_e4m3_block : fp8_e4m3<block<128, 128>> {
  static constexpr std::string_view name = "fp8_e4m3_block";
};

static_assert(format<fp8_e4m3_channel> && stored_bytes<fp8_e4m3_channel>(2, 100) == 200 + 4);
static_assert(format<fp8_e4m3_block> && stored_bytes<fp8_e4m3_block>(130, 100) == 13000 + 4);

}  // namespace prismaquant
