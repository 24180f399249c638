/// @file
/// Arithmetic on 16 lanes that has an instruction of its own: doubles, minima and maxima of floats, fused products.
#pragma once

#include "prismaquant/simd/lanes.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

// ---- doubles ----

/// The same values as doubles.
PRISMAQUANT_INLINE f64 widen(f32 a) {
  auto const doubles = []<class V>(V v) PRISMAQUANT_INLINE_LAMBDA {
    return __builtin_convertvector(v, native<double, sizeof(V) / sizeof(float)>);
  };
#if defined(PRISMAQUANT_AVX512)
  return {doubles(__builtin_shufflevector(a, a, 0, 1, 2, 3, 4, 5, 6, 7)),
          doubles(__builtin_shufflevector(a, a, 8, 9, 10, 11, 12, 13, 14, 15))};
#elif defined(PRISMAQUANT_AVX2)
  auto const half = [&](f32_register v) PRISMAQUANT_INLINE_LAMBDA {
    return pair<f64_register>{doubles(__builtin_shufflevector(v, v, 0, 1, 2, 3)),
                              doubles(__builtin_shufflevector(v, v, 4, 5, 6, 7))};
  };
  return {half(a.lo), half(a.hi)};
#else
  auto const quarter = [&](f32_register v) PRISMAQUANT_INLINE_LAMBDA {
    return pair<f64_register>{doubles(__builtin_shufflevector(v, v, 0, 1)),
                              doubles(__builtin_shufflevector(v, v, 2, 3))};
  };
  return {{quarter(a.lo.lo), quarter(a.lo.hi)}, {quarter(a.hi.lo), quarter(a.hi.hi)}};
#endif
}

/// The larger one; of numbers, not NaN.
PRISMAQUANT_INLINE f64_register larger(f64_register a, f64_register b) { return a < b ? b : a; }
template <class H>
PRISMAQUANT_INLINE pair<H> larger(pair<H> a, pair<H> b) {
  return {larger(a.lo, b.lo), larger(a.hi, b.hi)};
}

/// The smaller and the larger one; either of the two where one is NaN.
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

// ---- multiply and add ----

/// a * b + c where a * b is exact (a factor is a power of two), so that fusing the two operations changes nothing.
PRISMAQUANT_INLINE f32_register add_product(f32_register a, f32_register b, f32_register c) {
#if defined(PRISMAQUANT_AVX512)
  return (f32_register)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(PRISMAQUANT_AVX2)
  return (f32_register)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(PRISMAQUANT_NEON)
  return (f32_register)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}
template <class H>
PRISMAQUANT_INLINE pair<H> add_product(pair<H> a, pair<H> b, pair<H> c) {
  return {add_product(a.lo, b.lo, c.lo), add_product(a.hi, b.hi, c.hi)};
}

#if defined(PRISMAQUANT_AVX512) || defined(PRISMAQUANT_AVX2) || defined(PRISMAQUANT_NEON)
#define PRISMAQUANT_FMA 1
/// a * b - c and c - a * b, each rounded once.
PRISMAQUANT_INLINE f32_register product_minus(f32_register a, f32_register b, f32_register c) {
#if defined(PRISMAQUANT_AVX512)
  return (f32_register)_mm512_fmsub_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(PRISMAQUANT_AVX2)
  return (f32_register)_mm256_fmsub_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return (f32_register)vfmaq_f32(vnegq_f32((float32x4_t)c), (float32x4_t)a, (float32x4_t)b);
#endif
}
PRISMAQUANT_INLINE f32_register minus_product(f32_register c, f32_register a, f32_register b) {
#if defined(PRISMAQUANT_AVX512)
  return (f32_register)_mm512_fnmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(PRISMAQUANT_AVX2)
  return (f32_register)_mm256_fnmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return (f32_register)vfmsq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#endif
}
template <class H>
PRISMAQUANT_INLINE pair<H> product_minus(pair<H> a, pair<H> b, pair<H> c) {
  return {product_minus(a.lo, b.lo, c.lo), product_minus(a.hi, b.hi, c.hi)};
}
template <class H>
PRISMAQUANT_INLINE pair<H> minus_product(pair<H> c, pair<H> a, pair<H> b) {
  return {minus_product(c.lo, a.lo, b.lo), minus_product(c.hi, a.hi, b.hi)};
}
#endif

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
