/// @file
/// Arithmetic on lanes beyond `lanes.hpp`: what estimates may use although its rounding depends on the instruction set,
/// and float64 for what must be exact.
#pragma once

#include "prismaquant/simd/lanes.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// c - a * b: rounded once where the instruction set can, else twice. (`add_product` is the same for c + a * b.)
PRISMAQUANT_INLINE f32_register subtract_product(f32_register a, f32_register b, f32_register c) {
#if defined(PRISMAQUANT_AVX512)
  return (f32_register)_mm512_fnmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(PRISMAQUANT_AVX2)
  return (f32_register)_mm256_fnmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(PRISMAQUANT_NEON)
  return (f32_register)vfmsq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return c - a * b;
#endif
}

/// The smaller and the larger of two numbers; either of them where one is NaN.
PRISMAQUANT_INLINE f32_register smaller(f32_register a, f32_register b) {
#if defined(PRISMAQUANT_AVX512)
  return (f32_register)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(PRISMAQUANT_AVX2)
  return (f32_register)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(PRISMAQUANT_SSE2)
  return (f32_register)_mm_min_ps((__m128)a, (__m128)b);
#elif defined(PRISMAQUANT_NEON)
  return (f32_register)vminq_f32((float32x4_t)a, (float32x4_t)b);
#else
  return a < b ? a : b;
#endif
}
PRISMAQUANT_INLINE f32_register larger(f32_register a, f32_register b) {
#if defined(PRISMAQUANT_AVX512)
  return (f32_register)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(PRISMAQUANT_AVX2)
  return (f32_register)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(PRISMAQUANT_SSE2)
  return (f32_register)_mm_max_ps((__m128)a, (__m128)b);
#elif defined(PRISMAQUANT_NEON)
  return (f32_register)vmaxq_f32((float32x4_t)a, (float32x4_t)b);
#else
  return a > b ? a : b;
#endif
}

template <class H>
PRISMAQUANT_INLINE pair<H> operator~(pair<H> a) {
  return {~a.lo, ~a.hi};
}

/// Whether any lane of a mask is set.
PRISMAQUANT_INLINE bool any(i32_register mask) {
#if defined(PRISMAQUANT_AVX512)
  return _mm512_movepi32_mask((__m512i)mask) != 0;
#elif defined(PRISMAQUANT_AVX2)
  return _mm256_movemask_ps((__m256)mask) != 0;
#elif defined(PRISMAQUANT_SSE2)
  return _mm_movemask_ps((__m128)mask) != 0;
#elif defined(PRISMAQUANT_NEON)
  return vmaxvq_u32((uint32x4_t)mask) != 0;
#else
  std::int32_t joined = 0;
  for (int i = 0; i < register_bytes / 4; ++i) joined |= mask[i];
  return joined != 0;
#endif
}
template <class H>
PRISMAQUANT_INLINE bool any(pair<H> mask) {
  return any(mask.lo) || any(mask.hi);
}

/// The same numbers as float64.
PRISMAQUANT_INLINE pair<f64_register> widen(f32_register a) {
#if defined(PRISMAQUANT_AVX512)
  return {(f64_register)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)a)),
          (f64_register)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)a, 1))};
#elif defined(PRISMAQUANT_AVX2)
  return {(f64_register)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)a)),
          (f64_register)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)a, 1))};
#else
  return {__builtin_convertvector(__builtin_shufflevector(a, a, 0, 1), f64_register),
          __builtin_convertvector(__builtin_shufflevector(a, a, 2, 3), f64_register)};
#endif
}
template <class H>
PRISMAQUANT_INLINE auto widen(pair<H> a) {
  return pair<decltype(widen(a.lo))>{widen(a.lo), widen(a.hi)};
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
