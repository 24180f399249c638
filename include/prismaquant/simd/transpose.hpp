/// @file
/// Sixteen blocks side by side: maxima of 16 blocks as 16 lanes.
#pragma once

#include "prismaquant/simd/lanes.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// Largest lane of each of `v[0]` .. `v[15]`, as lanes 0 .. 15. Instead of 16 horizontal maxima (4 steps each), pairs
/// of vectors are interleaved and folded together: every step halves the number of vectors, so 16 blocks need 15
/// maxima.
///
/// 1. unpack dwords of (a, b), fold: a 128-bit lane holds [a b a b];
/// 2. unpack qwords of (ab, cd), fold: a 128-bit lane holds [a b c d], the partial maxima of that lane;
/// 3. fold the 128-bit lanes of a register onto each other while collecting the blocks in order.
#if defined(PRISMAQUANT_AVX512)
PRISMAQUANT_INLINE i32 largest_lanes(i32 const (&v)[16]) {
  __m512i a[8], b[4];
  PRISMAQUANT_UNROLL
  for (int i = 0; i < 8; ++i) {
    __m512i const x = (__m512i)v[2 * i], y = (__m512i)v[2 * i + 1];
    a[i] = _mm512_max_epi32(_mm512_unpacklo_epi32(x, y), _mm512_unpackhi_epi32(x, y));
  }
  PRISMAQUANT_UNROLL
  for (int i = 0; i < 4; ++i) {
    b[i] =
        _mm512_max_epi32(_mm512_unpacklo_epi64(a[2 * i], a[2 * i + 1]), _mm512_unpackhi_epi64(a[2 * i], a[2 * i + 1]));
  }
  auto const fold = [](__m512i x, __m512i y) {
    return _mm512_max_epi32(_mm512_shuffle_i64x2(x, y, 0x88), _mm512_shuffle_i64x2(x, y, 0xdd));
  };
  return (i32)fold(fold(b[0], b[1]), fold(b[2], b[3]));
}
#elif defined(PRISMAQUANT_AVX2)
PRISMAQUANT_INLINE i32 largest_lanes(i32 const (&v)[16]) {
  auto const eight = [&](int from) {
    __m256i a[4], b[2];
    PRISMAQUANT_UNROLL
    for (int i = 0; i < 4; ++i) {
      __m256i const x = (__m256i)max(v[from + 2 * i].lo, v[from + 2 * i].hi);
      __m256i const y = (__m256i)max(v[from + 2 * i + 1].lo, v[from + 2 * i + 1].hi);
      a[i] = _mm256_max_epi32(_mm256_unpacklo_epi32(x, y), _mm256_unpackhi_epi32(x, y));
    }
    PRISMAQUANT_UNROLL
    for (int i = 0; i < 2; ++i) {
      b[i] = _mm256_max_epi32(_mm256_unpacklo_epi64(a[2 * i], a[2 * i + 1]),
                              _mm256_unpackhi_epi64(a[2 * i], a[2 * i + 1]));
    }
    return (i32_register)_mm256_max_epi32(_mm256_permute2x128_si256(b[0], b[1], 0x20),
                                          _mm256_permute2x128_si256(b[0], b[1], 0x31));
  };
  return {eight(0), eight(8)};
}
#else
PRISMAQUANT_INLINE i32 largest_lanes(i32 const (&v)[16]) {
  if constexpr (requires { v[0].lo.lo; }) {
    auto const four = [&](int from) {
      i32_register m[4];
      PRISMAQUANT_UNROLL
      for (int i = 0; i < 4; ++i) {
        auto const halves = max(v[from + i].lo, v[from + i].hi);
        m[i] = max(halves.lo, halves.hi);
      }
      auto const fold = [](i32_register x, i32_register y) {
        return max((i32_register)__builtin_shufflevector(x, y, 0, 4, 1, 5),
                   (i32_register)__builtin_shufflevector(x, y, 2, 6, 3, 7));
      };
      i32_register const x = fold(m[0], m[1]), y = fold(m[2], m[3]);
      return max((i32_register)__builtin_shufflevector(x, y, 0, 1, 4, 5),
                 (i32_register)__builtin_shufflevector(x, y, 2, 3, 6, 7));
    };
    return {{four(0), four(4)}, {four(8), four(12)}};
  }
}
#endif

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
