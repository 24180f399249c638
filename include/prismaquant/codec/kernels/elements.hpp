/// @file
/// Element codecs on 16 lanes: the arithmetic of `formats/minifloat.hpp`, `formats/integer.hpp` and the code book of
/// `formats/nf4.hpp` without branches. Bit for bit the same results for every number; NaN never gets here.
#pragma once

#include <concepts>

#include "prismaquant/formats/integer.hpp"
#include "prismaquant/formats/minifloat.hpp"
#include "prismaquant/formats/nf4.hpp"
#include "prismaquant/simd/arithmetic.hpp"
#include "prismaquant/simd/packing.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

PRISMAQUANT_INLINE i32 magnitude_bits(f32 x) { return bits(x) & splat(0x7fffffff); }

/// Bits of infinity: a magnitude at or above it is not finite.
inline constexpr std::int32_t infinity_bits = 0x7f800000;

constexpr std::int32_t bits_of(float x) { return __builtin_bit_cast(std::int32_t, x); }

/// The lanes of an element codec: `encode` to codes and `decode` to values. `threshold_bits` is the number of
/// significant bits that the points between neighbouring codes have at most; 0 if they have no such bound.
template <class Element>
struct lanes_of_element;

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
PRISMAQUANT_INLINE i32 rounding_sum(f32 x, float largest, std::int32_t smallest_normal) {
  i32 const magnitude = min(magnitude_bits(x), splat(bits_of(largest)));
  i32 const binade = max(magnitude & splat(infinity_bits), splat(smallest_normal));
  constexpr float shift = static_cast<float>(1 << (23 - Mantissa));
  return bits(add_product(floats(binade), splat(shift), floats(magnitude)));
}

template <int E, int M, special_values Specials, int Bias>
struct minifloat_lanes {
  using scalar = minifloat<E, M, Specials, Bias>;
  static constexpr int bits_per_code = scalar::bits;
  static constexpr int threshold_bits = M + 2;
  static constexpr float max_value = scalar::max_value;
  static constexpr int max_exponent = scalar::max_exponent;
  static constexpr float smallest_normal = __builtin_bit_cast(float, (128 - Bias) << 23);

  /// The exponent of t is that of E plus 23 - M, and 2^M codes make a binade: with the exponent moved next to |x| /
  /// step the sum of both is the code, but for a constant.
  PRISMAQUANT_INLINE static i32 encode_magnitude(f32 x) {
    i32 const t = rounding_sum<M>(x, max_value, bits_of(smallest_normal));
    return (t + shift_right(t, 23 - M) - splat((128 - Bias + 23 - M) << M)) & splat(scalar::magnitude_mask);
  }
  PRISMAQUANT_INLINE static i32 encode(f32 x) {
    return encode_magnitude(x) | shift_right(bits(x) & splat(INT32_MIN), 32 - bits_per_code);
  }

  /// Normal codes move to their place in a float32, rebiased. A subnormal m read the same way gives half of
  /// smallest_normal * (1 + m / 2^M): twice that minus the smallest normal is its value, without ever touching a
  /// float32 subnormal.
  PRISMAQUANT_INLINE static f32 decode_magnitude(i32 code) {
    f32 const normal = floats((code << (23 - M)) + splat((127 - Bias) << 23));
    f32 value = select(less(code, splat(1 << M)), normal + normal - splat(smallest_normal), normal);
    if constexpr (Specials != special_values::none) {
      i32 special = splat(0x7fc00000);
      if constexpr (Specials == special_values::ieee) {
        special = select(less(splat(scalar::max_code + 1), code), special, splat(infinity_bits));
      }
      value = select(less(splat(scalar::max_code), code), floats(special), value);
    }
    return value;
  }
  /// Bits above the code's own are ignored.
  PRISMAQUANT_INLINE static f32 decode(i32 code) {
    return floats(bits(decode_magnitude(code & splat(scalar::magnitude_mask))) |
                  ((code & splat(scalar::sign_mask)) << (32 - bits_per_code)));
  }
};
template <int E, int M, special_values Specials, int Bias>
struct lanes_of_element<minifloat<E, M, Specials, Bias>> {
  using type = minifloat_lanes<E, M, Specials, Bias>;
};

using e4m3_lanes = minifloat_lanes<4, 3, special_values::nan_only, 7>;

/// E2M1 decodes by a table where the instruction set has one.
struct e2m1_lanes : minifloat_lanes<2, 1, special_values::none, 1> {
  /// Value of the low four bits.
  PRISMAQUANT_INLINE static f32 decode(i32 code) {
#if defined(PRISMAQUANT_AVX512)
    __m512 const values = _mm512_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6);
    return (f32)_mm512_permutexvar_ps((__m512i)code, values);
#elif defined(PRISMAQUANT_AVX2)
    __m256 const values = _mm256_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6);
    auto const magnitude = [&](i32_register c) { return (i32_register)_mm256_permutevar8x32_ps(values, (__m256i)c); };
    return floats(((code & splat(8)) << 28) | i32{magnitude(code.lo), magnitude(code.hi)});
#else
    return minifloat_lanes::decode(code);
#endif
  }
};
template <>
struct lanes_of_element<e2m1> {
  using type = e2m1_lanes;
};

/// bfloat16: float32 cut in half, so rounding is integer arithmetic; beyond the largest finite value it saturates.
struct bf16_lanes {
  static constexpr int bits_per_code = 16;
  static constexpr int threshold_bits = 0;

  PRISMAQUANT_INLINE static i32 encode(f32 x) {
    i32 const magnitude = magnitude_bits(x);
    i32 const odd = shift_right(magnitude, 16) & splat(1);
    i32 const code = min(shift_right(magnitude + splat(0x7fff) + odd, 16), splat(0x7f7f));
    return code | shift_right(bits(x) & splat(INT32_MIN), 16);
  }
  /// NaN codes give the one NaN of the scalar codec.
  PRISMAQUANT_INLINE static f32 decode(i32 code) {
    i32 const u = code << 16;
    i32 const nan = less(splat(infinity_bits), u & splat(0x7fffffff));
    return floats(select(nan, (u & splat(INT32_MIN)) | splat(0x7fc00000), u));
  }
};
template <>
struct lanes_of_element<bf16_element> {
  using type = bf16_lanes;
};

template <int Bits, integer_code Code, bool Symmetric, int FractionBits>
struct integer_lanes {
  using scalar = integer<Bits, Code, Symmetric, FractionBits>;
  static constexpr int bits_per_code = Bits;
  static constexpr int threshold_bits = Bits;
  static constexpr float max_value = scalar::max_value;
  static constexpr int max_exponent = scalar::max_exponent;
  static constexpr int bottom = 1 << (Bits - 1);
  static constexpr float rounding_shift = 0x1.8p23f;  ///< adding it rounds to an integer, in the low bits of the sum

  PRISMAQUANT_INLINE static i32 encode(f32 x) {
    f32 const scaled = FractionBits != 0 ? x * splat(static_cast<float>(1 << FractionBits)) : x;
    f32 const low = splat(static_cast<float>(scalar::lowest)), high = splat(static_cast<float>(scalar::highest));
    f32 const inside = select(less(scaled, low), low, select(less(high, scaled), high, scaled));
    i32 const sum = bits(inside + splat(rounding_shift));  // its low 22 bits are the integer
    return (Code == integer_code::offset_binary ? sum + splat(bottom) : sum) & splat(2 * bottom - 1);
  }
  /// Bits above the code's own are ignored.
  PRISMAQUANT_INLINE static f32 decode(i32 code) {
    i32 const mask = splat(2 * bottom - 1);
    i32 const offset = (Code == integer_code::offset_binary ? code : code + splat(bottom)) & mask;
    f32 const value = floats(offset + splat(bits_of(rounding_shift))) - splat(rounding_shift + bottom);
    return FractionBits != 0 ? value * splat(scalar::step) : value;
  }
};
template <int Bits, integer_code Code, bool Symmetric, int FractionBits>
struct lanes_of_element<integer<Bits, Code, Symmetric, FractionBits>> {
  using type = integer_lanes<Bits, Code, Symmetric, FractionBits>;
};

/// A code book of 16 values: the code of x is the number of midpoints below x.
template <class Table>
struct codebook_lanes {
  static constexpr int bits_per_code = 4;
  static constexpr int threshold_bits = 0;
  static constexpr float max_value = Table::values[15];
  struct sixteen {
    alignas(64) float value[16];
  };
  static constexpr sixteen table = [] {  // a copy: the library's own must not be emitted for one instruction set
    sixteen copy{};
    for (int i = 0; i < 16; ++i) copy.value[i] = Table::values[i];
    return copy;
  }();

  PRISMAQUANT_INLINE static i32 encode(f32 x) {
    i32 code = splat(0);
    PRISMAQUANT_UNROLL
    for (int i = 0; i < 15; ++i) code = code - less(splat(threshold(i)), x);
    return code;
  }
  /// Value of the low four bits.
  PRISMAQUANT_INLINE static f32 decode(i32 code) {
#if defined(PRISMAQUANT_AVX512)
    return (f32)_mm512_permutexvar_ps((__m512i)code, (__m512)load<f32>(table.value));
#elif defined(PRISMAQUANT_AVX2)
    __m256 const low = _mm256_load_ps(table.value), high = _mm256_load_ps(table.value + 8);
    auto const half = [&](i32_register c) {
      __m256 const from_low = _mm256_permutevar8x32_ps(low, (__m256i)c);
      __m256 const from_high = _mm256_permutevar8x32_ps(high, (__m256i)c);
      return (f32_register)_mm256_blendv_ps(from_low, from_high, (__m256)_mm256_slli_epi32((__m256i)c, 28));
    };
    return {half(code.lo), half(code.hi)};
#else
    std::int32_t lane[16];
    float value[16];
    store(lane, code);
    for (int i = 0; i < 16; ++i) value[i] = table.value[lane[i] & 15];
    return load<f32>(value);
#endif
  }

 private:
  /// The largest float32 that is not above the midpoint of entries i and i + 1: x is above the one if it is above the
  /// other.
  static constexpr float threshold(int i) {
    double const middle = (double{Table::values[i]} + double{Table::values[i + 1]}) / 2;
    auto const near = static_cast<float>(middle);
    if (double{near} <= middle) return near;
    return __builtin_bit_cast(float, bits_of(near) + (near > 0.0f ? -1 : 1));
  }
};
template <class Table>
requires(Table::bits == 4) struct lanes_of_element<codebook<Table>> {
  using type = codebook_lanes<Table>;
};

template <class Element>
using element_lanes = typename lanes_of_element<Element>::type;

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
