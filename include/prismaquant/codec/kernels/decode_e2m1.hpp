/// @file
/// E2M1 codes to bfloat16 on AVX-512: three times the speed of multiplying and rounding each element.
#pragma once

#include "prismaquant/codec/kernels/rounding.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS) && defined(PRISMAQUANT_AVX512)

namespace prismaquant::PRISMAQUANT_TARGET {

namespace e2m1_bf16 {

struct words {
  alignas(64) short word[32];
};
constexpr words of(auto&& value) {
  words w{};
  for (int k = 0; k < 32; ++k) w.word[k] = static_cast<short>(value(k));
  return w;
}
/// Value k of eight of a scale is one of its two words below, `odd` in `places`, with `exponents` added.
inline constexpr words signs = of([](int k) { return k % 16 < 8 ? 0 : -0x8000; });
inline constexpr words exponents = of([](int k) {
  constexpr int exponent[8] = {0, -0x80, 0, 0, 0x80, 0x80, 0x100, 0x100};
  return exponent[k % 8] + (k % 16 < 8 ? 0 : -0x8000);
});
template <std::size_t Group>
struct places_of_groups {
  words pair[Group / 2];
};
template <std::size_t Group>
inline constexpr places_of_groups<Group> places = [] {
  constexpr int odd[8] = {0, 0, 0, 1, 0, 1, 0, 1};
  places_of_groups<Group> all{};
  for (int e = 0; e < static_cast<int>(16 * Group); e += 32) {
    all.pair[e / 32] = of([&](int k) { return 2 * ((e + k) / static_cast<int>(Group)) + odd[k % 8]; });
  }
  return all;
}();

}  // namespace e2m1_bf16

/// The sixteen values that elements can have under one scale, for every two scales a table of 32 words that one
/// permutation looks 32 elements up in.
///
/// All values but zero are 1 or 1.5 times the scale times a power of two, and where nothing over- or underflows
/// rounding commutes with powers of two: so only two products per scale are rounded, and the rest is added to their
/// exponents.
class e2m1_bf16_tables {
 public:
  /// Whether that holds for all of 16 scales.
  PRISMAQUANT_INLINE bool set(float const* scales) {
    f32 const scale = load<f32>(scales);
    i32 const outside = less(scale, splat(0x1p-120f)) | less(splat(0x1p120f), scale);
    rounded_ = round_bf16(scale) | (round_bf16(scale * splat(1.5f)) << 16);
    // A NaN is not less than anything, but its rounded bits are beyond those of any number in range.
    return is_zero(outside | less(splat(bits_of(0x1p121f)), bits(scale)));
  }

  /// Values of the scales of elements e .. e + 15 and e + 16 .. e + 31: words 0 .. 15 and 16 .. 31, negative ones from
  /// 8 on.
  template <std::size_t Group>
  PRISMAQUANT_INLINE __m512i table(std::size_t e) const {
    __m512i const from = _mm512_load_si512(e2m1_bf16::places<Group>.pair[e / 32].word);
    __m512i const values = _mm512_permutexvar_epi16(from, (__m512i)rounded_);
    __m512i const sign = _mm512_load_si512(e2m1_bf16::signs.word);
    return _mm512_mask_add_epi16(sign, 0xfefefefe, values,
                                 _mm512_load_si512(e2m1_bf16::exponents.word));  // word 0 of 8 is zero
  }

 private:
  i32 rounded_;  ///< per scale: scale as bfloat16, above it 1.5 * scale
};

/// 32 elements from their 16 bytes.
PRISMAQUANT_INLINE i32 look_up_nibbles(std::uint8_t const* codes, __m512i table) {
  __m512i const bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(codes)));
  // A dword holds two nibbles in its low byte: to the low bits of its two words.
  __m512i const nibbles =
      _mm512_ternarylogic_epi32(bytes, _mm512_slli_epi32(bytes, 12), _mm512_set1_epi32(0x000f000f), 0xa8);
  __m512i const upper_half = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(16), 1);
  return (i32)_mm512_permutexvar_epi16(_mm512_or_si512(nibbles, upper_half), table);
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
