/// @file
/// Errors of 16 groups under one scale each: estimated in float32 with a proven bound, and exactly as the scalar codec
/// sums them in float64.
///
/// Groups lie side by side, one per lane, so that a sum over a group is a sum of vectors, in the order of its elements.
#pragma once

#include "prismaquant/codec/kernels/elements.hpp"
#include "prismaquant/simd/transpose.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// 16 groups of `Group` numbers: element e of group g is lane g of x[e].
template <std::size_t Group>
struct groups_by_element {
  f32 x[Group];
};

/// Numbers i .. i + 16 * Group - 1 of a row, as 16 groups. Long code that all formats of a group size share.
template <input In, std::size_t Group>
[[gnu::noinline]] groups_by_element<Group> load_groups(void const* row, std::size_t i) noexcept {
  groups_by_element<Group> groups;
  for (std::size_t part = 0; part < Group; part += 16) {
    f32_register rows[16][registers_per_lanes], columns[16][registers_per_lanes];
    PRISMAQUANT_UNROLL
    for (std::size_t g = 0; g < 16; ++g) {
      f32 const v = load_weights<In>(row, i + g * Group + part);
      __builtin_memcpy(rows[g], &v, sizeof v);
    }
    transpose(rows, columns);
    PRISMAQUANT_UNROLL
    for (std::size_t e = 0; e < 16; ++e) __builtin_memcpy(&groups.x[part + e], columns[e], sizeof(f32));
  }
  return groups;
}

/// Register `r` of 16 lanes.
template <class V, class Lanes>
PRISMAQUANT_INLINE V part_of(Lanes const& lanes, int r) {
  V v;
  __builtin_memcpy(&v, reinterpret_cast<char const*>(&lanes) + r * register_bytes, register_bytes);
  return v;
}
template <class V, class Lanes>
PRISMAQUANT_INLINE void set_part(Lanes& lanes, int r, V v) {
  __builtin_memcpy(reinterpret_cast<char*>(&lanes) + r * register_bytes, &v, register_bytes);
}
PRISMAQUANT_INLINE f32_register all(float x) { return splat_into<f32_register>::value(x); }
PRISMAQUANT_INLINE i32_register all(std::int32_t x) { return splat_into<i32_register>::value(x); }

/// The magnitudes of an element: from `smallest_normal` on 2^mantissa_bits steps per binade, below it evenly spaced.
template <class Element>
struct grid_of;
template <int E, int M, special_values Specials, int Bias>
struct grid_of<minifloat<E, M, Specials, Bias>> {
  static constexpr int mantissa_bits = M;
  static constexpr float smallest_normal = __builtin_bit_cast(float, (128 - Bias) << 23);
  static constexpr float largest = minifloat<E, M, Specials, Bias>::max_value;
};
/// Even steps all the way: what would be the smallest normal value is above the largest.
template <int Bits, integer_code Code, int FractionBits>
struct grid_of<integer<Bits, Code, true, FractionBits>> {
  static constexpr int mantissa_bits = Bits - 1;
  static constexpr float smallest_normal = __builtin_bit_cast(float, (127 + Bits - 1 - FractionBits) << 23);
  static constexpr float largest = integer<Bits, Code, true, FractionBits>::max_value;
};

/// The value of `Element` nearest to y, 0 <= y <= largest, ties to even: `rounding_sum`, without the code. The product
/// is exact, and so is the difference.
template <class Element>
PRISMAQUANT_INLINE f32_register nearest(f32_register y) {
  using grid = grid_of<Element>;
  f32_register const binade = larger(floats(bits(y) & all(infinity_bits)), all(grid::smallest_normal));
  f32_register const shift = all(static_cast<float>(1 << (23 - grid::mantissa_bits)));
  f32_register const sum = add_product(binade, shift, y);
#if defined(PRISMAQUANT_FMA)
  return minus_product(sum, binade, shift);
#else
  return sum - binade * shift;
#endif
}

/// The same for estimates: at the midpoint of two values either will do.
template <class Element>
PRISMAQUANT_INLINE f32_register nearest_either(f32_register y) {
#if defined(PRISMAQUANT_AVX512)
  // All midpoints of E2M1 are multiples of a quarter, and y < 8: y + 2^21, rounded towards zero, has floor(4 y) in its
  // low five bits, the index into a table of 32. Two instructions for four: a candidate takes 0.7 of the time.
  if constexpr (std::same_as<Element, e2m1>) {
    __m512 const low = _mm512_setr_ps(0, 0.5f, 0.5f, 1, 1, 1.5f, 1.5f, 2, 2, 2, 3, 3, 3, 3, 4, 4);
    __m512 const high = _mm512_setr_ps(4, 4, 4, 4, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6);
    __m512 const t = _mm512_add_round_ps((__m512)y, _mm512_set1_ps(0x1p21f), _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    return (f32_register)_mm512_permutex2var_ps(low, _mm512_castps_si512(t), high);
  }
#endif
  return nearest<Element>(y);
}

/// Scales whose codes are positive E4M3 numbers, under a global scale. Estimates use weights times global scale, so
/// that the scales are the E4M3 numbers themselves.
struct e4m3_steps {
  static constexpr int most_steps = 126;  ///< scales that far below a window are in the range of the estimates
  f32_register unit;                      ///< what weights are multiplied by

  PRISMAQUANT_INLINE explicit e4m3_steps(f32_register global_scale) : unit(global_scale) {}

  /// Codes from 8 on.
  PRISMAQUANT_INLINE static f32_register normal(i32_register code) { return floats((code << 20) + all(120 << 23)); }
  PRISMAQUANT_INLINE static f32_register number(i32_register code) {
    f32_register const as_normal = normal(code);
    return select(less(code, all(8)), as_normal + as_normal - all(0x1p-6f), as_normal);
  }
  PRISMAQUANT_INLINE static f32_register scale(i32_register code) { return number(code); }
  PRISMAQUANT_INLINE static f32_register inverse(f32_register scale) { return all(1.0f) / scale; }

  /// `e4m3_scale::decode`.
  PRISMAQUANT_INLINE static f32_register decode(i32_register code, f32_register global_scale) {
    return number(code) / global_scale;
  }
  /// Outside of these global scales some scale is subnormal or infinite.
  PRISMAQUANT_INLINE static i32 safe_for(f32 global_scale) {
    return less(splat(0x1p-100f), global_scale) & less(global_scale, splat(0x1p100f));
  }
  PRISMAQUANT_INLINE i32_register safe() const { return less(all(0x1p-100f), unit) & less(unit, all(0x1p100f)); }
};

/// Scales that are powers of two. Estimates use weights divided by the scale of code `base`.
struct e8m0_steps {
  static constexpr int most_steps = 40;
  i32_register base;
  f32_register unit;

  PRISMAQUANT_INLINE explicit e8m0_steps(i32_register code) : base(code), unit(floats((all(254) - code) << 23)) {}

  PRISMAQUANT_INLINE f32_register scale(i32_register code) const { return floats((code - base + all(127)) << 23); }
  PRISMAQUANT_INLINE static f32_register inverse(f32_register scale) { return floats(all(254 << 23) - bits(scale)); }

  /// `e8m0_scale::decode`, of codes from 1 on.
  PRISMAQUANT_INLINE static f32_register decode(i32_register code, f32_register) { return floats(code << 23); }
  PRISMAQUANT_INLINE static i32_register safe() { return all(-1); }
};

/// Estimated sum of squares |x - scale * value|^2 (times h), `value` being the element's nearest to x / scale; x >= 0.
/// Without `Saturate`, the value nearest to x / scale must be the largest at most.
template <class Element, bool Saturate, bool Weighted, std::size_t Group>
PRISMAQUANT_INLINE f32_register estimated_error(f32_register const (&x)[Group], f32_register const (&h)[Group],
                                                f32_register scale, f32_register inverse) {
  f32_register sum[4] = {all(0.0f), all(0.0f), all(0.0f), all(0.0f)};
  PRISMAQUANT_UNROLL
  for (std::size_t e = 0; e < Group; ++e) {
    f32_register const y = x[e] * inverse;
    f32_register const value = nearest_either<Element>(Saturate ? smaller(y, all(grid_of<Element>::largest)) : y);
    f32_register const difference = y - value;
    sum[e % 4] = add_product(Weighted ? h[e] * difference : difference, difference, sum[e % 4]);
  }
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])) * (scale * scale);
}

/// Errors of one group under 16 scale codes as the scalar codec sums them: the float32 quotient is rounded to the
/// element, all else is float64, in the order of the elements. `x` and `h`: the first element; the next are 16 apart.
template <class Steps, class Element, std::size_t Group, bool Weighted>
[[gnu::noinline]] void exact_errors(float const* x, float const* h, i32 codes, f32 global_scale,
                                    double (&errors)[16]) noexcept {
  f32 scale, value;
  for (int r = 0; r < registers_per_lanes; ++r) {
    set_part(scale, r, Steps::decode(part_of<i32_register>(codes, r), part_of<f32_register>(global_scale, r)));
  }
  f64 const wide_scale = widen(scale);
  f64 sum = splat(0.0);
  for (std::size_t e = 0; e < Group; ++e) {
    float const magnitude = __builtin_fabsf(x[16 * e]);
    // On the bits, because 0 / 0 is possible: what it rounds to times the scale 0 must stay 0.
    i32 const quotient = min(magnitude_bits(splat(magnitude) / scale), splat(bits_of(grid_of<Element>::largest)));
    PRISMAQUANT_UNROLL
    for (int r = 0; r < registers_per_lanes; ++r) {
      set_part(value, r, nearest<Element>(part_of<f32_register>(quotient, r)));
    }
    f64 const difference = splat(static_cast<double>(magnitude)) - widen(value) * wide_scale;
    f64 square = difference * difference;
    if constexpr (Weighted) square = splat(static_cast<double>(h[16 * e])) * square;
    sum = sum + square;
  }
  store(errors, sum);
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
