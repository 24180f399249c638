/// @file
/// Sixteen virtual lanes: one AVX-512 register, two of AVX2, four of SSE2 or NEON. Kernels are written once on them.
///
/// A type of 16 lanes is a native vector, or a pair of halves down to native vectors, so that the compiler keeps all of
/// it in registers. Arithmetic is that of the compiler's vector extensions: one IEEE operation per lane, never fused
/// (-ffp-contract=off), hence the same bits on every instruction set. Comparisons give masks of all ones or zeros.
#pragma once

#include <cstddef>
#include <cstdint>

#include "prismaquant/simd/target.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

#if defined(PRISMAQUANT_AVX512) || defined(PRISMAQUANT_AVX2)
#include <immintrin.h>
#elif defined(PRISMAQUANT_SSE2)
#include <emmintrin.h>
#elif defined(PRISMAQUANT_NEON)
#include <arm_neon.h>
#endif

namespace prismaquant::PRISMAQUANT_TARGET {

#if defined(PRISMAQUANT_AVX512)
inline constexpr int register_bytes = 64;
#elif defined(PRISMAQUANT_AVX2)
inline constexpr int register_bytes = 32;
#else
inline constexpr int register_bytes = 16;
#endif

template <class T, int Count>
struct native_vector {
  using type [[gnu::vector_size(sizeof(T) * Count)]] = T;
};
/// The compiler's own vector of `Count` elements.
template <class T, int Count>
using native = typename native_vector<T, Count>::type;

/// Two halves of a vector that is wider than a register.
template <class Half>
struct pair {
  Half lo, hi;
};

template <class T, int Count, bool Fits = (sizeof(T) * Count <= std::size_t{register_bytes})>
struct lanes_of {
  using type = native<T, Count>;
};
template <class T, int Count>
struct lanes_of<T, Count, false> {
  using type = pair<typename lanes_of<T, Count / 2>::type>;
};

using f32 = lanes_of<float, 16>::type;         ///< 16 x float
using i32 = lanes_of<std::int32_t, 16>::type;  ///< 16 x int32: bits, codes, masks
using f64 = pair<lanes_of<double, 8>::type>;   ///< 16 x double
using f32_register = native<float, register_bytes / 4>;
using i32_register = native<std::int32_t, register_bytes / 4>;
using f64_register = native<double, register_bytes / 8>;

// ---- arithmetic on pairs, from that on halves ----

template <class H>
PRISMAQUANT_INLINE pair<H> operator+(pair<H> a, pair<H> b) {
  return {a.lo + b.lo, a.hi + b.hi};
}
template <class H>
PRISMAQUANT_INLINE pair<H> operator-(pair<H> a, pair<H> b) {
  return {a.lo - b.lo, a.hi - b.hi};
}
template <class H>
PRISMAQUANT_INLINE pair<H> operator*(pair<H> a, pair<H> b) {
  return {a.lo * b.lo, a.hi * b.hi};
}
template <class H>
PRISMAQUANT_INLINE pair<H> operator/(pair<H> a, pair<H> b) {
  return {a.lo / b.lo, a.hi / b.hi};
}
template <class H>
PRISMAQUANT_INLINE pair<H> operator&(pair<H> a, pair<H> b) {
  return {a.lo & b.lo, a.hi & b.hi};
}
template <class H>
PRISMAQUANT_INLINE pair<H> operator|(pair<H> a, pair<H> b) {
  return {a.lo | b.lo, a.hi | b.hi};
}
template <class H>
PRISMAQUANT_INLINE pair<H> operator<<(pair<H> a, int n) {
  return {a.lo << n, a.hi << n};
}

/// Shifts zeros in from above.
PRISMAQUANT_INLINE i32_register shift_right(i32_register a, int n) {
  using unsigned_lanes = native<std::uint32_t, register_bytes / 4>;
  return (i32_register)((unsigned_lanes)a >> n);
}
template <class H>
PRISMAQUANT_INLINE pair<H> shift_right(pair<H> a, int n) {
  return {shift_right(a.lo, n), shift_right(a.hi, n)};
}

// ---- the same bits as another type ----

PRISMAQUANT_INLINE i32_register bits(f32_register a) { return (i32_register)a; }
PRISMAQUANT_INLINE f32_register floats(i32_register a) { return (f32_register)a; }
template <class H>
PRISMAQUANT_INLINE auto bits(pair<H> a) {
  return pair<decltype(bits(a.lo))>{bits(a.lo), bits(a.hi)};
}
template <class H>
PRISMAQUANT_INLINE auto floats(pair<H> a) {
  return pair<decltype(floats(a.lo))>{floats(a.lo), floats(a.hi)};
}

// ---- comparison, selection ----

PRISMAQUANT_INLINE i32_register less(i32_register a, i32_register b) { return a < b; }
PRISMAQUANT_INLINE i32_register less(f32_register a, f32_register b) { return a < b; }
template <class H>
PRISMAQUANT_INLINE auto less(pair<H> a, pair<H> b) {
  return pair<decltype(less(a.lo, b.lo))>{less(a.lo, b.lo), less(a.hi, b.hi)};
}

/// Lanes of `a` where the mask is set, else of `b`.
PRISMAQUANT_INLINE i32_register select(i32_register mask, i32_register a, i32_register b) { return mask ? a : b; }
PRISMAQUANT_INLINE f32_register select(i32_register mask, f32_register a, f32_register b) { return mask ? a : b; }
template <class M, class H>
PRISMAQUANT_INLINE pair<H> select(pair<M> mask, pair<H> a, pair<H> b) {
  return {select(mask.lo, a.lo, b.lo), select(mask.hi, a.hi, b.hi)};
}

/// Signed maximum and minimum. Magnitudes of floats are compared by their bits: NaN sorts above infinity, on every
/// instruction set alike, which no float maximum does.
PRISMAQUANT_INLINE i32_register max(i32_register a, i32_register b) {
#if defined(PRISMAQUANT_AVX512)
  return (i32_register)_mm512_max_epi32((__m512i)a, (__m512i)b);
#elif defined(PRISMAQUANT_AVX2)
  return (i32_register)_mm256_max_epi32((__m256i)a, (__m256i)b);
#elif defined(PRISMAQUANT_NEON)
  return (i32_register)vmaxq_s32((int32x4_t)a, (int32x4_t)b);
#else
  return a > b ? a : b;
#endif
}
PRISMAQUANT_INLINE i32_register min(i32_register a, i32_register b) {
#if defined(PRISMAQUANT_AVX512)
  return (i32_register)_mm512_min_epi32((__m512i)a, (__m512i)b);
#elif defined(PRISMAQUANT_AVX2)
  return (i32_register)_mm256_min_epi32((__m256i)a, (__m256i)b);
#elif defined(PRISMAQUANT_NEON)
  return (i32_register)vminq_s32((int32x4_t)a, (int32x4_t)b);
#else
  return a < b ? a : b;
#endif
}
template <class H>
PRISMAQUANT_INLINE pair<H> max(pair<H> a, pair<H> b) {
  return {max(a.lo, b.lo), max(a.hi, b.hi)};
}
template <class H>
PRISMAQUANT_INLINE pair<H> min(pair<H> a, pair<H> b) {
  return {min(a.lo, b.lo), min(a.hi, b.hi)};
}

// ---- one value in all lanes ----

template <class V>
struct splat_into {
  template <class T>
  PRISMAQUANT_INLINE static V value(T x) {
    return x - V{};  // the compiler's spelling of a broadcast
  }
};
template <class H>
struct splat_into<pair<H>> {
  template <class T>
  PRISMAQUANT_INLINE static pair<H> value(T x) {
    H const half = splat_into<H>::value(x);
    return {half, half};
  }
};
PRISMAQUANT_INLINE f32 splat(float x) { return splat_into<f32>::value(x); }
PRISMAQUANT_INLINE i32 splat(std::int32_t x) { return splat_into<i32>::value(x); }
PRISMAQUANT_INLINE f64 splat(double x) { return splat_into<f64>::value(x); }

// ---- memory, any alignment: register by register ----

template <class V, class T>
PRISMAQUANT_INLINE V load(T const* p) {
  if constexpr (requires(V v) { v.lo; }) {
    using half = decltype(V::lo);
    return {load<half>(p), load<half>(p + sizeof(half) / sizeof(T))};
  } else {
    V v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
}
template <class V, class T>
PRISMAQUANT_INLINE void store(T* p, V v) {
  if constexpr (requires { v.lo; }) {
    store(p, v.lo);
    store(p + sizeof(v.lo) / sizeof(T), v.hi);
  } else {
    __builtin_memcpy(p, &v, sizeof v);
  }
}

// ---- folds ----

/// Maxima of the registers that make up 16 lanes, as one register.
PRISMAQUANT_INLINE i32_register fold_max(i32_register a) { return a; }
template <class H>
PRISMAQUANT_INLINE i32_register fold_max(pair<H> a) {
  return fold_max(max(a.lo, a.hi));
}

/// Whether no bit of any lane is set.
PRISMAQUANT_INLINE bool is_zero(i32_register a) {
#if defined(PRISMAQUANT_AVX512)
  return _mm512_test_epi32_mask((__m512i)a, (__m512i)a) == 0;
#elif defined(PRISMAQUANT_AVX2)
  return _mm256_testz_si256((__m256i)a, (__m256i)a) != 0;
#elif defined(PRISMAQUANT_NEON)
  return vmaxvq_u32((uint32x4_t)a) == 0;
#else
  return (a[0] | a[1] | a[2] | a[3]) == 0;
#endif
}
template <class H>
PRISMAQUANT_INLINE bool is_zero(pair<H> a) {
  return is_zero(a.lo | a.hi);
}

/// Largest of 16 lanes.
PRISMAQUANT_INLINE std::int32_t horizontal_max(i32 a) {
  std::int32_t lane[16];
  store(lane, a);
  std::int32_t largest = lane[0];
  for (int i = 1; i < 16; ++i) largest = lane[i] > largest ? lane[i] : largest;
  return largest;
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
