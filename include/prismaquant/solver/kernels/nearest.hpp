/// @file
/// The value of the nearest code, without the code.
#pragma once

#include "prismaquant/codec/kernels/elements.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

template <class Element>
struct nearest_value {
  PRISMAQUANT_INLINE static f32 of(f32 x) { return element_lanes<Element>::decode(element_lanes<Element>::encode(x)); }
};

/// The rounding sum (see `rounding_sum`) minus what was added for rounding, which is exact.
template <int E, int M, special_values Specials, int Bias>
struct nearest_value<minifloat<E, M, Specials, Bias>> {
  PRISMAQUANT_INLINE static f32 of(f32 x) {
    using lanes = minifloat_lanes<E, M, Specials, Bias>;
    i32 const magnitude = min(magnitude_bits(x), splat(bits_of(lanes::max_value)));
    f32 const binade = floats(max(magnitude & splat(infinity_bits), splat(bits_of(lanes::smallest_normal))));
    f32 const shift = splat(static_cast<float>(1 << (23 - M)));
    f32 const rounded = add_product(binade, shift, floats(magnitude));
    return floats(bits(rounded - binade * shift) | (bits(x) & splat(INT32_MIN)));
  }
};

/// c - a * b, fused where the instruction set can.
PRISMAQUANT_INLINE f32 subtract_product(f32 c, f32 a, f32 b) {
#if defined(PRISMAQUANT_FMA)
  return minus_product(c, a, b);
#else
  return c - a * b;
#endif
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
