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

/// Registers that make up 16 lanes.
inline constexpr int registers_per_lanes = 64 / register_bytes;

/// Turns 16 rows of 16 floats into 16 columns, register by register: rows[r][c / n] to columns[c][r / n] with n lanes
/// to a register. Tiles of n x n are turned by interleaving dwords, then pairs of them, then 128-bit lanes.
PRISMAQUANT_INLINE void transpose(f32_register const (&rows)[16][registers_per_lanes],
                                  f32_register (&columns)[16][registers_per_lanes]) {
#if defined(PRISMAQUANT_AVX512)
  __m512 two[16], four[16];
  PRISMAQUANT_UNROLL
  for (int i = 0; i < 16; i += 2) {
    two[i] = _mm512_unpacklo_ps((__m512)rows[i][0], (__m512)rows[i + 1][0]);
    two[i + 1] = _mm512_unpackhi_ps((__m512)rows[i][0], (__m512)rows[i + 1][0]);
  }
  auto const low = [](__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  auto const high = [](__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  PRISMAQUANT_UNROLL
  for (int i = 0; i < 16; i += 4) {  // four[i + c] holds columns c, c + 4, c + 8, c + 12 of rows i .. i + 3
    four[i] = low(two[i], two[i + 2]);
    four[i + 1] = high(two[i], two[i + 2]);
    four[i + 2] = low(two[i + 1], two[i + 3]);
    four[i + 3] = high(two[i + 1], two[i + 3]);
  }
  PRISMAQUANT_UNROLL
  for (int c = 0; c < 4; ++c) {
    __m512 const even = _mm512_shuffle_f32x4(four[c], four[c + 4], 0x88);         // columns c, c + 8; rows 0 .. 7
    __m512 const odd = _mm512_shuffle_f32x4(four[c], four[c + 4], 0xdd);          // columns c + 4, c + 12
    __m512 const even_2 = _mm512_shuffle_f32x4(four[c + 8], four[c + 12], 0x88);  // rows 8 .. 15
    __m512 const odd_2 = _mm512_shuffle_f32x4(four[c + 8], four[c + 12], 0xdd);
    columns[c][0] = (f32_register)_mm512_shuffle_f32x4(even, even_2, 0x88);
    columns[c + 4][0] = (f32_register)_mm512_shuffle_f32x4(odd, odd_2, 0x88);
    columns[c + 8][0] = (f32_register)_mm512_shuffle_f32x4(even, even_2, 0xdd);
    columns[c + 12][0] = (f32_register)_mm512_shuffle_f32x4(odd, odd_2, 0xdd);
  }
#elif defined(PRISMAQUANT_AVX2)
  PRISMAQUANT_UNROLL
  for (int tile = 0; tile < 4; ++tile) {
    int const down = tile / 2, across = tile % 2;
    __m256 two[8], four[8];
    PRISMAQUANT_UNROLL
    for (int i = 0; i < 8; i += 2) {
      __m256 const a = (__m256)rows[8 * down + i][across], b = (__m256)rows[8 * down + i + 1][across];
      two[i] = _mm256_unpacklo_ps(a, b);
      two[i + 1] = _mm256_unpackhi_ps(a, b);
    }
    PRISMAQUANT_UNROLL
    for (int i = 0; i < 8; i += 4) {  // four[i + c] holds columns c, c + 4 of rows i .. i + 3
      four[i] = _mm256_shuffle_ps(two[i], two[i + 2], 0x44);
      four[i + 1] = _mm256_shuffle_ps(two[i], two[i + 2], 0xee);
      four[i + 2] = _mm256_shuffle_ps(two[i + 1], two[i + 3], 0x44);
      four[i + 3] = _mm256_shuffle_ps(two[i + 1], two[i + 3], 0xee);
    }
    PRISMAQUANT_UNROLL
    for (int c = 0; c < 4; ++c) {
      columns[8 * across + c][down] = (f32_register)_mm256_permute2f128_ps(four[c], four[c + 4], 0x20);
      columns[8 * across + c + 4][down] = (f32_register)_mm256_permute2f128_ps(four[c], four[c + 4], 0x31);
    }
  }
#else
  PRISMAQUANT_UNROLL
  for (int tile = 0; tile < 16; ++tile) {
    int const down = tile / 4, across = tile % 4;
    f32_register const a = rows[4 * down][across], b = rows[4 * down + 1][across];
    f32_register const c = rows[4 * down + 2][across], d = rows[4 * down + 3][across];
    f32_register const ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    f32_register const ab_2 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    f32_register const cd_2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    columns[4 * across][down] = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    columns[4 * across + 1][down] = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    columns[4 * across + 2][down] = __builtin_shufflevector(ab_2, cd_2, 0, 1, 4, 5);
    columns[4 * across + 3][down] = __builtin_shufflevector(ab_2, cd_2, 2, 3, 6, 7);
  }
#endif
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
