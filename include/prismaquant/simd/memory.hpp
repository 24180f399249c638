/// @file
/// How 16 lanes come from and go to memory: weights of three types in, 64 bytes out, plainly or past the caches. In
/// element order, any alignment. `packing.hpp`, `transpose.hpp` and this have a version per instruction set.
#pragma once

#include "prismaquant/simd/lanes.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// Types of weights. The kernels see bits; `core/float_types.hpp` has the same types for the scalar codec.
enum class input { float32, bfloat16, float16 };

template <input In>
inline constexpr std::size_t input_bytes = In == input::float32 ? 4 : 2;

/// 16 unsigned 16-bit integers, widened.
PRISMAQUANT_INLINE i32 load_u16(std::uint16_t const* p) {
#if defined(PRISMAQUANT_AVX512)
  return (i32)_mm512_cvtepu16_epi32(_mm256_loadu_si256((__m256i const*)p));
#elif defined(PRISMAQUANT_AVX2)
  auto const half = [&](int i) { return (i32_register)_mm256_cvtepu16_epi32(_mm_loadu_si128((__m128i const*)p + i)); };
  return {half(0), half(1)};
#elif defined(PRISMAQUANT_SSE2)
  auto const half = [&](int i) {
    __m128i const v = _mm_loadu_si128((__m128i const*)p + i);
    __m128i const zero = _mm_setzero_si128();
    return pair<i32_register>{(i32_register)_mm_unpacklo_epi16(v, zero), (i32_register)_mm_unpackhi_epi16(v, zero)};
  };
  return {half(0), half(1)};
#else
  i32 v;
  std::int32_t wide[16];
  for (int i = 0; i < 16; ++i) wide[i] = p[i];
  __builtin_memcpy(&v, wide, sizeof v);
  return v;
#endif
}

/// 16 bytes, widened.
PRISMAQUANT_INLINE i32 load_u8(std::uint8_t const* p) {
#if defined(PRISMAQUANT_AVX512)
  return (i32)_mm512_cvtepu8_epi32(_mm_loadu_si128((__m128i const*)p));
#elif defined(PRISMAQUANT_AVX2)
  auto const half = [&](int i) {
    return (i32_register)_mm256_cvtepu8_epi32(_mm_loadl_epi64((__m128i const*)(p + 8 * i)));
  };
  return {half(0), half(1)};
#elif defined(PRISMAQUANT_SSE2)
  __m128i const zero = _mm_setzero_si128();
  __m128i const v = _mm_loadu_si128((__m128i const*)p);
  auto const half = [&](__m128i w) {
    return pair<i32_register>{(i32_register)_mm_unpacklo_epi16(w, zero), (i32_register)_mm_unpackhi_epi16(w, zero)};
  };
  return {half(_mm_unpacklo_epi8(v, zero)), half(_mm_unpackhi_epi8(v, zero))};
#else
  std::uint16_t wide[16];
  for (int i = 0; i < 16; ++i) wide[i] = p[i];
  return load_u16(wide);
#endif
}

/// Magnitudes of binary16 as float32, on the integers: significand and exponent move as one to their float32 places and
/// a multiplication by 2^112 rebiases them, subnormals included, exactly; infinity and NaN, whose exponent is all ones,
/// get it put back.
PRISMAQUANT_INLINE f32 widen_float16(i32 magnitude) {
  i32 const finite = bits(floats(magnitude << 13) * splat(0x1p112f));
  return floats(finite | (less(splat(0x7bff), magnitude) & splat(0x7f800000)));
}

/// Weights i .. i + 15 as float32.
template <input In>
PRISMAQUANT_INLINE f32 load_weights(void const* data, std::size_t i) {
  if constexpr (In == input::float32) {
    return load<f32>(static_cast<float const*>(data) + i);
  } else {
    i32 const raw = load_u16(static_cast<std::uint16_t const*>(data) + i);
    if constexpr (In == input::bfloat16) {
      return floats(raw << 16);
    } else {
#if defined(PRISMAQUANT_AVX512)
      return (f32)_mm512_cvtph_ps(_mm256_loadu_si256((__m256i const*)(static_cast<std::uint16_t const*>(data) + i)));
#endif
      return floats(bits(widen_float16(raw & splat(0x7fff))) | ((raw & splat(0x8000)) << 16));
    }
  }
}

/// How a row is written: plainly, or past the caches to addresses aligned to a register, or only to 16 bytes.
enum class how { plain, stream, stream_16 };

template <how How>
struct how_constant {
  static constexpr how value = How;
};

/// 64 bytes.
template <how How, class T, class V>
PRISMAQUANT_INLINE void store_how(T* out, V a) {
#if defined(PRISMAQUANT_AVX512)
  if constexpr (How == how::stream) return _mm512_stream_si512(reinterpret_cast<__m512i*>(out), (__m512i)a);
#elif defined(PRISMAQUANT_AVX2)
  if constexpr (How == how::stream) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(out), (__m256i)a.lo);
    return _mm256_stream_si256(reinterpret_cast<__m256i*>(out) + 1, (__m256i)a.hi);
  }
#endif
#if defined(PRISMAQUANT_AVX512) || defined(PRISMAQUANT_AVX2) || defined(PRISMAQUANT_SSE2)
  if constexpr (How != how::plain) {
    alignas(64) char piece[64];
    store(piece, a);
    auto* const to = reinterpret_cast<__m128i*>(out);
    PRISMAQUANT_UNROLL
    for (int i = 0; i < 4; ++i) _mm_stream_si128(to + i, _mm_load_si128(reinterpret_cast<__m128i const*>(piece) + i));
    return;
  }
#endif
  store(out, a);
}

/// Makes streamed stores visible before anything that follows.
PRISMAQUANT_INLINE void stream_fence() {
#if defined(PRISMAQUANT_AVX512) || defined(PRISMAQUANT_AVX2) || defined(PRISMAQUANT_SSE2)
  _mm_sfence();
#endif
}

/// Calls `body` with the way of writing that the address and `stream` allow.
template <class Body>
PRISMAQUANT_INLINE void with_stores(void const* out, bool stream, Body&& body) {
  auto const address = reinterpret_cast<std::uintptr_t>(out);
  if (!stream || address % 16 != 0) return body(how_constant<how::plain>{});
  if (address % register_bytes == 0) {
    body(how_constant<how::stream>{});
  } else {
    body(how_constant<how::stream_16>{});
  }
  stream_fence();
}

/// Asks for the cache line `distance` bytes behind `p`, which may lie outside of any object: nothing is touched.
PRISMAQUANT_INLINE void prefetch(void const* p, std::size_t distance) {
  __builtin_prefetch(reinterpret_cast<void const*>(reinterpret_cast<std::uintptr_t>(p) + distance), 0, 3);
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
