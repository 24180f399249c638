/// @file
/// float32 to 16-bit floats on 16 lanes: the `round` of `core/float_types.hpp`, bit for bit, NaN and infinity included.
#pragma once

#include "prismaquant/codec/kernels/elements.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// Nearest bfloat16 as low 16 bits, `bfloat16::round`: NaN stays NaN, overflow gives infinity.
PRISMAQUANT_INLINE i32 round_bf16(f32 x) {
  i32 const u = bits(x);
  i32 const nearest = shift_right(u + splat(0x7fff) + (shift_right(u, 16) & splat(1)), 16);
  return select(less(splat(infinity_bits), magnitude_bits(x)), shift_right(u, 16) | splat(0x40), nearest);
}

/// Nearest float16 as low 16 bits, `float16::round`.
PRISMAQUANT_INLINE i32 round_fp16(f32 x) {
  using lanes = element_lanes<fp16_element>;
  i32 const magnitude = magnitude_bits(x);
  i32 code = select(less(splat(0x477fefff), magnitude), splat(0x7c00), lanes::encode_magnitude(x));
  i32 const nan = splat(0x7e00) | (shift_right(magnitude, 13) & splat(0x3ff));
  code = select(less(splat(infinity_bits), magnitude), nan, code);
  return code | (shift_right(bits(x), 16) & splat(0x8000));
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
