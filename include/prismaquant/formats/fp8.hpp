/// @file
/// FP8, E4M3 or E5M2, with one scale per output channel, per tensor, per 128 x 128 block, or per token.
/// Source: OCP 8-bit Floating Point v1.0; storage as in compressed-tensors (`float-quantized`).
#pragma once

#include <string_view>

#include "prismaquant/formats/format.hpp"

namespace prismaquant {

/// value = Element(code) * scale of the block; `Block` says how far a scale reaches.
template <class Element, class Block, class Scale = bf16_scale>
struct fp8 {
  using element = Element;
  using scale = Scale;
  using block_shape = Block;
  using layout = plain_words<std::uint8_t>;
  using extra = no_extra;
  static constexpr bool has_global_scale = false;
  static constexpr bool ragged_blocks = true;
};

struct fp8_e4m3_channel : fp8<e4m3, block<1, 0>> {
  static constexpr std::string_view name = "fp8_e4m3_channel";
};
struct fp8_e4m3_tensor : fp8<e4m3, block<0, 0>> {
  static constexpr std::string_view name = "fp8_e4m3_tensor";
};
struct fp8_e4m3_block : fp8<e4m3, block<128, 128>> {
  static constexpr std::string_view name = "fp8_e4m3_block";
};
/// Activations: blocks as per channel, but the scale is never stored in 16 bits. vLLM computes it in float32 for every
/// token (and keeps it above 1 / (448 * 512), which only rows below 2^-9 notice).
struct fp8_e4m3_token : fp8<e4m3, block<1, 0>, float32_scale> {
  static constexpr std::string_view name = "fp8_e4m3_token";
};

struct fp8_e5m2_channel : fp8<e5m2, block<1, 0>> {
  static constexpr std::string_view name = "fp8_e5m2_channel";
};
struct fp8_e5m2_tensor : fp8<e5m2, block<0, 0>> {
  static constexpr std::string_view name = "fp8_e5m2_tensor";
};
struct fp8_e5m2_block : fp8<e5m2, block<128, 128>> {
  static constexpr std::string_view name = "fp8_e5m2_block";
};
struct fp8_e5m2_token : fp8<e5m2, block<1, 0>, float32_scale> {
  static constexpr std::string_view name = "fp8_e5m2_token";
};

static_assert(format<fp8_e4m3_channel> && stored_bytes<fp8_e4m3_channel>(2, 100) == 200 + 4);
static_assert(format<fp8_e4m3_block> && stored_bytes<fp8_e4m3_block>(130, 100) == 13000 + 4);
static_assert(format<fp8_e5m2_token> && stored_bytes<fp8_e5m2_token>(2, 100) == 200 + 8);

}  // namespace prismaquant
