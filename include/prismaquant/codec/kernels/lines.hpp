/// @file
/// Quotients (weight / scale) to stored element codes, one line of a layout at a time.
#pragma once

#include "prismaquant/codec/kernels/elements.hpp"
#include "prismaquant/codec/kernels/layouts.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// `put` writes the codes of `vectors` x 16 quotients as `bytes` bytes.
template <class Element, class Layout>
struct line {
  static constexpr int vectors = layout_lanes<Layout>::vectors;
  static constexpr std::size_t elements = 16 * vectors;
  static constexpr std::size_t bytes = elements * layout_lanes<Layout>::bits_per_code / 8;

  template <how How>
  PRISMAQUANT_INLINE static void put(std::uint8_t* out, f32 const (&x)[vectors]) {
    i32 codes[vectors];
    PRISMAQUANT_UNROLL
    for (int v = 0; v < vectors; ++v) codes[v] = Element::encode(x[v]);
    layout_lanes<Layout>::template put<How>(out, codes);
  }
};

#if defined(PRISMAQUANT_AVX512)

// The same codes with fewer instructions (1.5 times the speed of the lines above on AVX-512), because a sign, an
// exponent and a few mantissa bits can be merged after packing, for four vectors at once.
//
// 1. `range` clamps |x| to the largest value and raises the binade to the smallest normal one, keeping the sign of x:
//    so t = E * 2^(23 - M) + x comes out signed, and -0 survives.
// 2. t = [sign:1][exponent:8][mantissa:23], the low mantissa bits q = |x| / step. Rotated left by 9, its low 16 bits
//    are [q:7][sign:1][exponent:8]; rotated by 25, its high 16 bits are. So words of two vectors fit one register.
// 3. One multiply-add of bytes gives c * exponent + 2 q + sign with c = 2^(M + 1): twice the code, plus sign, plus a
//    constant. Its low byte is all that matters.

template <int Mantissa>
PRISMAQUANT_INLINE __m512i signed_sum(f32 x, float largest, float smallest_normal) {
  __m512 const y = _mm512_range_ps((__m512)x, _mm512_set1_ps(largest), 0x2);  // the smaller magnitude, sign of x
  __m512i const power = _mm512_and_si512(_mm512_castps_si512(y), _mm512_set1_epi32(static_cast<int>(0xff800000)));
  __m512 const e = _mm512_range_ps(_mm512_castsi512_ps(power), _mm512_set1_ps(smallest_normal), 0x3);  // the larger
  return _mm512_castps_si512(_mm512_fmadd_ps(e, _mm512_set1_ps(static_cast<float>(1 << (23 - Mantissa))), y));
}

/// Words: twice the code, plus sign, plus a constant; those of `a` in the low halves of dwords, of `b` in the high
/// ones.
template <class Element, int Mantissa>
PRISMAQUANT_INLINE __m512i doubled_words(f32 a, f32 b) {
  constexpr float largest = Element::max_value, smallest = Element::smallest_normal;
  __m512i const ta = _mm512_rol_epi32(signed_sum<Mantissa>(a, largest, smallest), 9);
  __m512i const tb = _mm512_rol_epi32(signed_sum<Mantissa>(b, largest, smallest), 25);
  __m512i const merged = _mm512_ternarylogic_epi32(_mm512_set1_epi32(0xffff), ta, tb, 0xca);
  return _mm512_maddubs_epi16(merged, _mm512_set1_epi16(0x0100 | 1 << (Mantissa + 1)));
}

/// Low bytes of two registers of words, those of `a` first.
PRISMAQUANT_INLINE __m512i merge_bytes(__m512i a, __m512i b) {
  return _mm512_ternarylogic_epi32(_mm512_set1_epi32(0x00ff00ff), a, _mm512_slli_epi32(b, 8), 0xca);
}

/// E2M1: the exponent of t is 149 at E = 1, so the bytes are 4 * 149 + 2 code + sign = 84 + 2 code + sign modulo 256; a
/// table of 16 turns their low nibble into the code with its sign on top.
PRISMAQUANT_INLINE __m512i e2m1_codes(__m512i doubled) {
  __m128i const table = _mm_setr_epi8(6, 14, 7, 15, 0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13);  // from 84 % 16 = 4 on
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), doubled);
}

template <>
struct line<e2m1_lanes, packed_nibbles> {
  static constexpr int vectors = 8;
  static constexpr std::size_t elements = 128, bytes = 64;

  /// Nibbles of neighbouring elements lie 32 bits apart: shifting by 28 and merging leaves a byte of two in place, and
  /// the last permutation collects bytes by vector.
  template <how How>
  PRISMAQUANT_INLINE static void put(std::uint8_t* out, f32 const (&x)[vectors]) {
    auto const nibbles = [&](int v) PRISMAQUANT_INLINE_LAMBDA {
      __m512i const code = e2m1_codes(
          merge_bytes(doubled_words<e2m1_lanes, 1>(x[v], x[v + 1]), doubled_words<e2m1_lanes, 1>(x[v + 2], x[v + 3])));
      return _mm512_or_si512(code, _mm512_srli_epi64(code, 28));
    };
    __m512i const both =
        _mm512_ternarylogic_epi64(_mm512_set1_epi64(0xffffffff), nibbles(0), _mm512_slli_epi64(nibbles(4), 32), 0xca);
    // Qword j holds elements 2 j, 2 j + 1 of vectors [a c b d e g f h].
#if defined(PRISMAQUANT_VBMI)
    alignas(64) static constexpr std::uint8_t order[64] = {
        0,  8,  16, 24, 32, 40, 48, 56, 2,  10, 18, 26, 34, 42, 50, 58, 1,  9,  17, 25, 33, 41,
        49, 57, 3,  11, 19, 27, 35, 43, 51, 59, 4,  12, 20, 28, 36, 44, 52, 60, 6,  14, 22, 30,
        38, 46, 54, 62, 5,  13, 21, 29, 37, 45, 53, 61, 7,  15, 23, 31, 39, 47, 55, 63};
    store_how<How>(out, (i32)_mm512_permutexvar_epi8(_mm512_load_si512(order), both));
#else
    // Words of two bytes per vector within a 128-bit lane, then words across lanes.
    __m512i const within = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 8, 2, 10, 1, 9, 3, 11, 4, 12, 6, 14, 5, 13, 7, 15));
    alignas(64) static constexpr short across[32] = {0, 8,  16, 24, 1, 9,  17, 25, 2, 10, 18, 26, 3, 11, 19, 27,
                                                     4, 12, 20, 28, 5, 13, 21, 29, 6, 14, 22, 30, 7, 15, 23, 31};
    store_how<How>(out, (i32)_mm512_permutexvar_epi16(_mm512_load_si512(across), _mm512_shuffle_epi8(both, within)));
#endif
  }
};

/// FP8: the exponent of t is known at the smallest normal, where the code is 2^M; taking the constant off and rotating
/// each byte right by one puts the sign on top.
template <int E, int M, special_values Specials, int Bias>
requires(E + M == 7) struct line<minifloat_lanes<E, M, Specials, Bias>, plain_words<std::uint8_t>> {
  static constexpr int vectors = 4;
  static constexpr std::size_t elements = 64, bytes = 64;

  template <how How>
  PRISMAQUANT_INLINE static void put(std::uint8_t* out, f32 const (&x)[vectors]) {
    using lanes = minifloat_lanes<E, M, Specials, Bias>;
    constexpr int constant = (128 - Bias + 23 - M) << (M + 1);
    __m512i const all = merge_bytes(doubled_words<lanes, M>(x[0], x[1]), doubled_words<lanes, M>(x[2], x[3]));
    __m512i const doubled = _mm512_sub_epi8(all, _mm512_set1_epi8(static_cast<char>(constant)));
    __m512i const low = _mm512_set1_epi8(0x7f);
    __m512i const rotated =
        _mm512_ternarylogic_epi32(low, _mm512_srli_epi32(doubled, 1), _mm512_slli_epi32(doubled, 7), 0xca);
    store_how<How>(out, order_acbd((i32)rotated));
  }
};

#endif

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
