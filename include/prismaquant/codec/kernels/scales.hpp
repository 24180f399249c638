/// @file
/// Scale codecs on 16 lanes, one per group: the arithmetic of `formats/scale_codecs.hpp`, bit for bit.
#pragma once

#include "prismaquant/codec/kernels/elements.hpp"
#include "prismaquant/formats/scale_codecs.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// The lanes of a scale codec. Codes are lanes of int32 (a float32 scale: its bits); `amax` are bits of magnitudes.
template <class Scale>
struct scale_lanes;

template <>
struct scale_lanes<e4m3_scale> {
  using code_type = std::uint8_t;
  static constexpr bool has_exact_inverse = false;

  PRISMAQUANT_INLINE static i32 from_amax(i32 amax, float element_max, f32 global_scale) {
    i32 const code = e4m3_lanes::encode_magnitude(global_scale * (floats(amax) / splat(element_max)));
    return select(less(splat(0), code), code, splat(0x20));
  }
  PRISMAQUANT_INLINE static f32 decode(i32 code, f32 global_scale) { return e4m3_lanes::decode(code) / global_scale; }
};

template <int ElementMaxExponent, int RoundingBits>
struct scale_lanes<e8m0_scale<ElementMaxExponent, RoundingBits>> {
  using scalar = e8m0_scale<ElementMaxExponent, RoundingBits>;
  using code_type = std::uint8_t;
  static constexpr bool has_exact_inverse = true;

  PRISMAQUANT_INLINE static i32 from_amax(i32 amax, float /*element_max*/, f32 /*global_scale*/) {
    return of(amax, shift_right(amax + splat(1 << (22 - RoundingBits)), 23));
  }
  PRISMAQUANT_INLINE static i32 floor(i32 amax) { return of(amax, shift_right(amax, 23)); }

  /// Products of element_max and a power of two are exact.
  PRISMAQUANT_INLINE static i32 ceil(i32 amax, float element_max) {
    i32 const code = floor(amax);
    i32 const largest = bits(splat(element_max) * floats(code << 23));
    return min(code - less(largest, amax), splat(scalar::max_code));
  }

  PRISMAQUANT_INLINE static f32 decode(i32 code, f32 /*global_scale*/) { return power(code); }

  /// 2^(127 - code): multiplying by it rounds the same real number as dividing by the scale.
  PRISMAQUANT_INLINE static f32 inverse(i32 code) { return power(splat(254) - code); }

 private:
  /// 2^(code - 127); of code 0 a subnormal.
  PRISMAQUANT_INLINE static f32 power(i32 code) {
    return floats(select(less(splat(0), code), code << 23, splat(0x00400000)));
  }
  PRISMAQUANT_INLINE static i32 of(i32 amax, i32 exponent) {
    i32 const code = min(max(exponent - splat(ElementMaxExponent), splat(1)), splat(scalar::max_code));
    return select(less(splat(0), amax), code, splat(127));
  }
};

template <>
struct scale_lanes<bf16_scale> {
  using code_type = std::uint16_t;
  static constexpr bool has_exact_inverse = false;

  PRISMAQUANT_INLINE static i32 from_amax(i32 amax, float element_max, f32 /*global_scale*/) {
    i32 const largest = splat(bits_of(std::numeric_limits<float>::max() / (element_max + 0.5f)) >> 16);
    i32 const code = min(bf16_lanes::encode(floats(amax) / splat(element_max)), largest);
    return select(less(splat(0), code), code, splat(bits_of(0x1p-7f) >> 16));
  }
  PRISMAQUANT_INLINE static f32 decode(i32 code, f32 /*global_scale*/) { return floats(code << 16); }
};

template <>
struct scale_lanes<float32_scale> {
  using code_type = float;
  static constexpr bool has_exact_inverse = false;

  PRISMAQUANT_INLINE static i32 from_amax(i32 amax, float element_max, f32 /*global_scale*/) {
    i32 const scale = max(bits(floats(amax) / splat(element_max)), splat(bits_of(0x1p-126f)));
    return scale + less(splat(infinity_bits - 1), bits(floats(scale) * splat(element_max)));  // -1 where it overflows
  }
  PRISMAQUANT_INLINE static f32 decode(i32 code, f32 /*global_scale*/) { return floats(code); }
};

/// Scale codes i .. i + 15.
template <class Code>
PRISMAQUANT_INLINE i32 load_codes(void const* codes, std::size_t i) {
  if constexpr (sizeof(Code) == 1) return load_u8(static_cast<std::uint8_t const*>(codes) + i);
  if constexpr (sizeof(Code) == 2) return load_u16(static_cast<std::uint16_t const*>(codes) + i);
  if constexpr (sizeof(Code) == 4) return load<i32>(static_cast<std::int32_t const*>(codes) + i);
}
template <class Code>
PRISMAQUANT_INLINE void store_codes(void* codes, std::size_t i, i32 a) {
  if constexpr (sizeof(Code) == 1) store_bytes(static_cast<std::uint8_t*>(codes) + i, a);
  if constexpr (sizeof(Code) == 2) store_u16(static_cast<std::uint16_t*>(codes) + i, a);
  if constexpr (sizeof(Code) == 4) store(static_cast<std::int32_t*>(codes) + i, a);
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
