/// @file
/// Element and scale codecs on 16 lanes: the arithmetic of `formats/minifloat.hpp` and `formats/scale_codecs.hpp`
/// without branches and tables. Bit for bit the same results for every finite input.
#pragma once

#include "prismaquant/simd/memory.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

PRISMAQUANT_INLINE i32 magnitude_bits(f32 x) { return bits(x) & splat(0x7fffffff); }

/// Bits of infinity: a magnitude at or above it is not finite.
inline constexpr std::int32_t infinity_bits = 0x7f800000;

/// Rounds |x| to a small float by one floating-point addition.
///
/// A float32 addition rounds its sum to a multiple of the sum's last place, ties to even. With E the power of two at or
/// below |x|, but at least the smallest normal value of the target (below it the steps no longer shrink), and M
/// mantissa bits in the target, E * 2^(23 - M) has a last place of E * 2^-M: the step of the target's grid at x. So
///
/// 1. clamp |x| to the largest finite value (on the bits; infinity saturates),
/// 2. E = the exponent bits of that, at least the smallest normal's,
/// 3. t = E * 2^(23 - M) + |x|; the product is exact, the addition rounds once.
///
/// The low bits of t now hold |x| / step rounded, its exponent the binade. Taking max(|x|, smallest normal) itself
/// instead of its power of two would be wrong just below a binade: it rounds at twice the step.
template <int Mantissa>
struct rounded {
  i32 sum;     ///< bits of t: low bits |x| / step
  i32 binade;  ///< bits of E
};
template <int Mantissa>
PRISMAQUANT_INLINE rounded<Mantissa> round_magnitude(f32 x, float largest, std::int32_t smallest_normal) {
  i32 const magnitude = min(magnitude_bits(x), bits(splat(largest)));
  i32 const binade = max(magnitude & splat(infinity_bits), splat(smallest_normal));
  constexpr float shift = static_cast<float>(1 << (23 - Mantissa));
  return {bits(add_product(floats(binade), splat(shift), floats(magnitude))), binade};
}

/// E2M1: M = 1, smallest normal 1. |x| / step is 0 .. 4; two codes per binade, and t's exponent is 149 at E = 1.
struct e2m1_lanes {
  static constexpr int bits_per_code = 4;
  static constexpr int max_exponent = 2;

  PRISMAQUANT_INLINE static i32 encode(f32 x) {
    i32 const t = round_magnitude<1>(x, 6.0f, 127 << 23).sum;
    i32 const code = (t + shift_right(t, 22) - splat(2 * 149)) & splat(7);
    return code | shift_right(bits(x) & splat(INT32_MIN), 28);
  }

  /// Value of the low four bits. From code 2 on, exponent and mantissa bits are those of a float32 after rebiasing.
  PRISMAQUANT_INLINE static f32 decode(i32 code) {
#if defined(PRISMAQUANT_AVX512)
    __m512 const values = _mm512_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6);
    return (f32)_mm512_permutexvar_ps((__m512i)code, values);
#else
    i32 const sign = (code & splat(8)) << 28;
#if defined(PRISMAQUANT_AVX2)
    __m256 const values = _mm256_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6);
    auto const magnitude = [&](i32_register c) { return (i32_register)_mm256_permutevar8x32_ps(values, (__m256i)c); };
    return floats(sign | i32{magnitude(code.lo), magnitude(code.hi)});
#else
    i32 const c = code & splat(7);
    i32 const small = (splat(0) - c) & splat(126 << 23);  // 0 or 0.5
    return floats(sign | select(less(c, splat(2)), small, (c << 22) + splat(126 << 23)));
#endif
#endif
  }
};

/// E4M3: M = 3, smallest normal 2^-6 (exponent 121). |x| / step is 0 .. 16; eight codes per binade.
struct e4m3_lanes {
  static constexpr int bits_per_code = 8;
  static constexpr int max_exponent = 8;

  PRISMAQUANT_INLINE static i32 encode_magnitude(f32 x) {
    auto const r = round_magnitude<3>(x, 448.0f, 121 << 23);
    return (r.sum + shift_right(r.binade, 20) - splat(8 * 121)) & splat(0x7f);
  }
  PRISMAQUANT_INLINE static i32 encode(f32 x) {
    return encode_magnitude(x) | shift_right(bits(x) & splat(INT32_MIN), 24);
  }

  /// Value of a code 0 .. 127. Normal codes move to their place in a float32, rebiased. A subnormal m * 2^-9 read the
  /// same way gives 2^-7 (1 + m / 8): twice that minus 2^-6 is m * 2^-9, without ever touching a float32 subnormal.
  PRISMAQUANT_INLINE static f32 decode_magnitude(i32 code) {
    f32 const normal = floats((code << 20) + splat(120 << 23));
    f32 const value = select(less(code, splat(8)), normal + normal - splat(0x1p-6f), normal);
    return select(less(splat(0x7e), code), floats(splat(0x7fc00000)), value);
  }
  PRISMAQUANT_INLINE static f32 decode(i32 code) {
    return floats(bits(decode_magnitude(code & splat(0x7f))) | ((code & splat(0x80)) << 24));
  }
};

/// How a scale codec chooses for 16 groups at once, and how an element is then divided by its scale.
struct nvfp4_scale {
  static constexpr int group = 16;

  /// `e4m3_scale::from_amax`.
  PRISMAQUANT_INLINE static i32 choose(i32 amax, f32 global_scale) {
    i32 const code = e4m3_lanes::encode_magnitude(global_scale * (floats(amax) / splat(6.0f)));
    return select(less(splat(0), code), code, splat(0x20));
  }
  PRISMAQUANT_INLINE static f32 factor(i32 code, f32 global_scale) { return decode(code, global_scale); }
  PRISMAQUANT_INLINE static f32 quotient(f32 x, f32 factor) { return x / factor; }

  PRISMAQUANT_INLINE static f32 decode(i32 code, f32 global_scale) { return e4m3_lanes::decode(code) / global_scale; }
};

/// The factor of a power of two is its inverse: multiplying by it rounds the same real number as dividing.
template <class Element>
struct e8m0_lanes {
  static constexpr int group = 32;

  /// `e8m0_scale::from_amax`.
  PRISMAQUANT_INLINE static i32 choose(i32 amax, f32) {
    i32 const code = shift_right(amax + splat(0x200000), 23) - splat(Element::max_exponent);
    i32 const clamped = min(max(code, splat(1)), splat(254 - Element::max_exponent));
    return select(less(splat(0), amax), clamped, splat(127));
  }
  PRISMAQUANT_INLINE static f32 factor(i32 code, f32) { return floats((splat(254) - code) << 23); }
  PRISMAQUANT_INLINE static f32 quotient(f32 x, f32 factor) { return x * factor; }

  PRISMAQUANT_INLINE static f32 decode(i32 code, f32) {
    return floats(select(less(splat(0), code), code << 23, splat(0x00400000)));
  }
};

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
