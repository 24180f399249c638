/// @file
/// Sixteen blocks side by side: maxima of 16 blocks as 16 lanes.
#pragma once

#include "prismaquant/simd/lanes.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// Largest lane of each of the registers `v[0]` .. `v[15]`, as lanes 0 .. 15. Instead of 16 horizontal maxima (2 to 4
/// steps each), pairs of vectors are interleaved and folded together: every step halves the number of vectors, so 16
/// blocks need at most 15 maxima.
///
/// 1. unpack dwords of (a, b), fold: a 128-bit lane holds [a b a b];
/// 2. unpack qwords of (ab, cd), fold: a 128-bit lane holds [a b c d], the partial maxima of that lane;
/// 3. fold the 128-bit lanes of a register onto each other while collecting the blocks in order.
PRISMAQUANT_INLINE i32 largest_lanes(i32_register const (&v)[16]) {
#if defined(PRISMAQUANT_AVX512)
  auto const in_lanes = [](i32_register a, i32_register b) {
    __m512i const x = (__m512i)a, y = (__m512i)b;
    return _mm512_max_epi32(_mm512_unpacklo_epi32(x, y), _mm512_unpackhi_epi32(x, y));
  };
  auto const four = [&](int i) {
    __m512i const x = in_lanes(v[i], v[i + 1]), y = in_lanes(v[i + 2], v[i + 3]);
    return _mm512_max_epi32(_mm512_unpacklo_epi64(x, y), _mm512_unpackhi_epi64(x, y));
  };
  auto const across = [](__m512i x, __m512i y) {
    return _mm512_max_epi32(_mm512_shuffle_i64x2(x, y, 0x88), _mm512_shuffle_i64x2(x, y, 0xdd));
  };
  return (i32)across(across(four(0), four(4)), across(four(8), four(12)));
#elif defined(PRISMAQUANT_AVX2)
  auto const in_lanes = [](i32_register a, i32_register b) {
    __m256i const x = (__m256i)a, y = (__m256i)b;
    return _mm256_max_epi32(_mm256_unpacklo_epi32(x, y), _mm256_unpackhi_epi32(x, y));
  };
  auto const four = [&](int i) {
    __m256i const x = in_lanes(v[i], v[i + 1]), y = in_lanes(v[i + 2], v[i + 3]);
    return _mm256_max_epi32(_mm256_unpacklo_epi64(x, y), _mm256_unpackhi_epi64(x, y));
  };
  auto const eight = [&](int i) {
    __m256i const x = four(i), y = four(i + 4);
    return (i32_register)_mm256_max_epi32(_mm256_permute2x128_si256(x, y, 0x20), _mm256_permute2x128_si256(x, y, 0x31));
  };
  return {eight(0), eight(8)};
#else
  auto const in_lanes = [](i32_register x, i32_register y) {
    return max((i32_register)__builtin_shufflevector(x, y, 0, 4, 1, 5),
               (i32_register)__builtin_shufflevector(x, y, 2, 6, 3, 7));
  };
  auto const four = [&](int i) {
    i32_register const x = in_lanes(v[i], v[i + 1]), y = in_lanes(v[i + 2], v[i + 3]);
    return max((i32_register)__builtin_shufflevector(x, y, 0, 1, 4, 5),
               (i32_register)__builtin_shufflevector(x, y, 2, 3, 6, 7));
  };
  return {{four(0), four(4)}, {four(8), four(12)}};
#endif
}

i32 largest_halves(i32_register const* v);  // only where a register holds two groups of 8 lanes

#if defined(PRISMAQUANT_AVX512)
/// Largest lane of the lower and of the upper half of each of `v[0]` .. `v[7]`, halves in order, as lanes 0 .. 15.
inline i32 largest_halves(i32_register const* v) {
  auto const in_lanes = [](i32_register a, i32_register b) {
    __m512i const x = (__m512i)a, y = (__m512i)b;
    return _mm512_max_epi32(_mm512_unpacklo_epi32(x, y), _mm512_unpackhi_epi32(x, y));
  };
  auto const four = [&](int i) {
    __m512i const x = in_lanes(v[i], v[i + 1]), y = in_lanes(v[i + 2], v[i + 3]);
    return _mm512_max_epi32(_mm512_unpacklo_epi64(x, y), _mm512_unpackhi_epi64(x, y));
  };
  __m512i const x = four(0), y = four(4);
  __m512i const halves = _mm512_max_epi32(_mm512_shuffle_i64x2(x, y, 0x88), _mm512_shuffle_i64x2(x, y, 0xdd));
  // now [lower of 0 .. 3, upper of 0 .. 3, lower of 4 .. 7, upper of 4 .. 7]
  __m512i const order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
  return (i32)_mm512_permutexvar_epi32(order, halves);
}
#endif

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
