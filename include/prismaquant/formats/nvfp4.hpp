/// @file
/// NVFP4: E2M1 elements in groups of 16 along a row, one E4M3 scale per group, one float32 global scale per tensor.
/// Source: NVIDIA's NVFP4 as stored by compressed-tensors (`nvfp4-pack-quantized`).
#pragma once

#include <string_view>

#include "prismaquant/formats/format.hpp"

namespace prismaquant {

/// value = E2M1(code) * (E4M3(scale) / global_scale). The global scale is a divisor, as compressed-tensors stores it.
struct nvfp4 {
  static constexpr std::string_view name = "nvfp4";
  using element = e2m1;
  using scale = e4m3_scale;
  using block_shape = block<1, 16>;
  using layout = packed_nibbles;
  using extra = no_extra;
  static constexpr bool has_global_scale = true;
  static constexpr bool ragged_blocks = false;

  /// The divisor that maps a tensor whose largest magnitude is `amax` to block scales of at most `largest_scale`
  /// (at most 448): largest_scale * 6 / amax. Fused siblings share the one of their common amax. A zero tensor, one so
  /// small that the quotient overflows, or an infinite one (which no encoder accepts) gets 1.
  static constexpr float global_scale(float amax, float largest_scale) noexcept {
    float const divisor = amax > 0.0f ? largest_scale * element::max_value / amax : 1.0f;
    return is_finite(divisor) && divisor > 0.0f ? divisor : 1.0f;
  }
};

static_assert(format<nvfp4> && nvfp4::global_scale(1.5f, 448.0f) == 1792.0f);
static_assert(stored_bytes<nvfp4>(1, 32) == 16 + 2 + 4);

}  // namespace prismaquant
