/// @file
/// Codes of 4, 6, 8 and 16 bits from and to 16 lanes, in element order.
#pragma once

#include "prismaquant/simd/memory.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

#if defined(PRISMAQUANT_AVX512)
/// Byte 4 j + {0, 2, 1, 3}[v] is element j of vector v: into order. Two permutations, within and across 128-bit lanes.
PRISMAQUANT_INLINE i32 order_acbd(i32 bytes) {
  __m512i const within = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 2, 6, 10, 14, 1, 5, 9, 13, 3, 7, 11, 15));
  __m512i const across = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return (i32)_mm512_permutexvar_epi32(across, _mm512_shuffle_epi8((__m512i)bytes, within));
}
#endif

/// Low bytes of 4 x 16 lanes, each 0 .. 255, as 64 bytes in order.
PRISMAQUANT_INLINE i32 pack_bytes(i32 a, i32 b, i32 c, i32 d) {
#if defined(PRISMAQUANT_AVX512)
  // Dwords a, b, c, d are merged to bytes [a c b d] of one register; then bytes into order within each 128-bit lane,
  // then 4-byte pieces across lanes.
  __m512i const low = _mm512_set1_epi32(0xffff), even = _mm512_set1_epi32(0x00ff00ff);
  __m512i const ab = _mm512_ternarylogic_epi32(low, (__m512i)a, _mm512_slli_epi32((__m512i)b, 16), 0xca);
  __m512i const cd = _mm512_ternarylogic_epi32(low, (__m512i)c, _mm512_slli_epi32((__m512i)d, 16), 0xca);
  return order_acbd((i32)_mm512_ternarylogic_epi32(even, ab, _mm512_slli_epi32(cd, 8), 0xca));
#elif defined(PRISMAQUANT_AVX2)
  auto const half = [&](i32 x, i32 y) {
    __m256i const words_x = _mm256_packs_epi32((__m256i)x.lo, (__m256i)x.hi);
    __m256i const words_y = _mm256_packs_epi32((__m256i)y.lo, (__m256i)y.hi);
    __m256i const bytes = _mm256_packus_epi16(words_x, words_y);
    return (i32_register)_mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  };
  return {half(a, b), half(c, d)};
#elif defined(PRISMAQUANT_SSE2)
  auto const quarter = [](i32 x) {
    __m128i const lo = _mm_packs_epi32((__m128i)x.lo.lo, (__m128i)x.lo.hi);
    __m128i const hi = _mm_packs_epi32((__m128i)x.hi.lo, (__m128i)x.hi.hi);
    return (i32_register)_mm_packus_epi16(lo, hi);
  };
  return {{quarter(a), quarter(b)}, {quarter(c), quarter(d)}};
#elif defined(PRISMAQUANT_NEON)
  auto const quarter = [](i32 x) {
    uint16x8_t const lo = vcombine_u16(vmovn_u32((uint32x4_t)x.lo.lo), vmovn_u32((uint32x4_t)x.lo.hi));
    uint16x8_t const hi = vcombine_u16(vmovn_u32((uint32x4_t)x.hi.lo), vmovn_u32((uint32x4_t)x.hi.hi));
    return (i32_register)vcombine_u8(vmovn_u16(lo), vmovn_u16(hi));
  };
  return {{quarter(a), quarter(b)}, {quarter(c), quarter(d)}};
#else
  std::int32_t wide[64];
  store(wide, a), store(wide + 16, b), store(wide + 32, c), store(wide + 48, d);
  std::uint8_t byte[64];
  for (int i = 0; i < 64; ++i) byte[i] = static_cast<std::uint8_t>(wide[i]);
  return load<i32>(byte);
#endif
}

/// 128 bytes, each 0 .. 15, as 64 bytes of two nibbles, the even byte in the low one.
PRISMAQUANT_INLINE i32 pack_nibbles(i32 a, i32 b) {
#if defined(PRISMAQUANT_AVX512)
  __m512i const weights = _mm512_set1_epi16(0x1001);  // even + 16 * odd
  __m512i const lo = _mm512_maddubs_epi16((__m512i)a, weights), hi = _mm512_maddubs_epi16((__m512i)b, weights);
  __m512i const order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  return (i32)_mm512_permutexvar_epi64(order, _mm512_packus_epi16(lo, hi));
#elif defined(PRISMAQUANT_AVX2)
  auto const half = [](i32 x) {
    __m256i const weights = _mm256_set1_epi16(0x1001);
    __m256i const lo = _mm256_maddubs_epi16((__m256i)x.lo, weights), hi = _mm256_maddubs_epi16((__m256i)x.hi, weights);
    return (i32_register)_mm256_permute4x64_epi64(_mm256_packus_epi16(lo, hi), 0xd8);
  };
  return {half(a), half(b)};
#elif defined(PRISMAQUANT_SSE2)
  auto const quarter = [](pair<i32_register> x) {
    auto const merged = [](i32_register v) {  // a word holds even | odd << 8: bring odd next to even, drop the rest
      __m128i const w = (__m128i)v;
      return _mm_and_si128(_mm_or_si128(w, _mm_srli_epi16(w, 4)), _mm_set1_epi16(0xff));
    };
    return (i32_register)_mm_packus_epi16(merged(x.lo), merged(x.hi));
  };
  return {{quarter(a.lo), quarter(a.hi)}, {quarter(b.lo), quarter(b.hi)}};
#elif defined(PRISMAQUANT_NEON)
  auto const quarter = [](pair<i32_register> x) {
    uint8x16_t const even = vuzp1q_u8((uint8x16_t)x.lo, (uint8x16_t)x.hi);
    uint8x16_t const odd = vuzp2q_u8((uint8x16_t)x.lo, (uint8x16_t)x.hi);
    return (i32_register)vorrq_u8(even, vshlq_n_u8(odd, 4));
  };
  return {{quarter(a.lo), quarter(a.hi)}, {quarter(b.lo), quarter(b.hi)}};
#else
  std::uint8_t byte[128], packed[64];
  store(byte, a), store(byte + 64, b);
  for (int i = 0; i < 64; ++i) packed[i] = static_cast<std::uint8_t>(byte[2 * i] | byte[2 * i + 1] << 4);
  return load<i32>(packed);
#endif
}

/// Low bytes of 16 lanes, each 0 .. 255, to 16 bytes.
PRISMAQUANT_INLINE void store_bytes(std::uint8_t* out, i32 a) {
#if defined(PRISMAQUANT_AVX512)
  _mm_storeu_si128((__m128i*)out, _mm512_cvtepi32_epi8((__m512i)a));
#else
  i32 const all = pack_bytes(a, a, a, a);
  __builtin_memcpy(out, &all, 16);
#endif
}

/// Low 16 bits of 16 lanes.
PRISMAQUANT_INLINE void store_u16(std::uint16_t* out, i32 a) {
#if defined(PRISMAQUANT_AVX512)
  _mm256_storeu_si256((__m256i*)out, _mm512_cvtepi32_epi16((__m512i)a));
#elif defined(PRISMAQUANT_AVX2)
  __m256i const low = _mm256_set1_epi32(0xffff);
  __m256i const words = _mm256_packus_epi32(_mm256_and_si256((__m256i)a.lo, low), _mm256_and_si256((__m256i)a.hi, low));
  _mm256_storeu_si256((__m256i*)out, _mm256_permute4x64_epi64(words, 0xd8));
#elif defined(PRISMAQUANT_SSE2)
  auto const put = [](std::uint16_t* to, pair<i32_register> x) {  // sign extension makes the signed pack exact
    auto const extended = [](i32_register v) { return _mm_srai_epi32(_mm_slli_epi32((__m128i)v, 16), 16); };
    _mm_storeu_si128((__m128i*)to, _mm_packs_epi32(extended(x.lo), extended(x.hi)));
  };
  put(out, a.lo);
  put(out + 8, a.hi);
#elif defined(PRISMAQUANT_NEON)
  vst1q_u16(out, vcombine_u16(vmovn_u32((uint32x4_t)a.lo.lo), vmovn_u32((uint32x4_t)a.lo.hi)));
  vst1q_u16(out + 8, vcombine_u16(vmovn_u32((uint32x4_t)a.hi.lo), vmovn_u32((uint32x4_t)a.hi.hi)));
#else
  std::int32_t wide[16];
  __builtin_memcpy(wide, &a, sizeof wide);
  for (int i = 0; i < 16; ++i) out[i] = static_cast<std::uint16_t>(wide[i]);
#endif
}

/// Low 16 bits of 32 lanes as 64 bytes.
PRISMAQUANT_INLINE i32 pack_u16(i32 a, i32 b) {
#if defined(PRISMAQUANT_AVX512)
  alignas(64) static constexpr short even[32] = {0,  2,  4,  6,  8,  10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
                                                 32, 34, 36, 38, 40, 42, 44, 46, 48, 50, 52, 54, 56, 58, 60, 62};
  return (i32)_mm512_permutex2var_epi16((__m512i)a, _mm512_load_si512(even), (__m512i)b);
#else
  alignas(64) std::uint16_t packed[32];
  store_u16(packed, a);
  store_u16(packed + 16, b);
  return load<i32>(packed);
#endif
}

/// Eight bytes.
PRISMAQUANT_INLINE std::uint64_t load_u64(std::uint8_t const* p) {
  std::uint64_t v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

/// The 16 nibbles of a word, from its lowest. Bits above the low four of a lane are unspecified.
PRISMAQUANT_INLINE i32 spread_nibbles(std::uint64_t word) {
#if defined(PRISMAQUANT_AVX512)
  __m512i const all = _mm512_set1_epi64(static_cast<long long>(word));
#if defined(PRISMAQUANT_VBMI)
  // A byte of qword k of the result is eight bits of the source from any bit on: dwords 2 k and 2 k + 1 take nibbles
  // 2 k and 2 k + 1, in one instruction.
  __m512i const from = _mm512_setr_epi64(0x0400000000, 0x0c00000008, 0x1400000010, 0x1c00000018, 0x2400000020,
                                         0x2c00000028, 0x3400000030, 0x3c00000038);
  return (i32)_mm512_multishift_epi64_epi8(from, all);
#else
  __m512i const half = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  __m512i const shift = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
  return (i32)_mm512_srlv_epi32(_mm512_permutexvar_epi32(half, all), shift);
#endif
#elif defined(PRISMAQUANT_AVX2)
  auto const eight = [&](std::uint64_t half) {
    __m256i const all = _mm256_set1_epi32(static_cast<int>(half));
    return (i32_register)_mm256_srlv_epi32(all, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
  };
  return {eight(word), eight(word >> 32)};
#elif defined(PRISMAQUANT_SSE2)
  __m128i const v = _mm_cvtsi64_si128(static_cast<long long>(word));
  __m128i const bytes = _mm_unpacklo_epi8(v, _mm_srli_epi16(v, 4));
  __m128i const zero = _mm_setzero_si128();
  auto const half = [&](__m128i w) {
    return pair<i32_register>{(i32_register)_mm_unpacklo_epi16(w, zero), (i32_register)_mm_unpackhi_epi16(w, zero)};
  };
  return {half(_mm_unpacklo_epi8(bytes, zero)), half(_mm_unpackhi_epi8(bytes, zero))};
#else
  std::uint8_t nibble[16];
  for (int i = 0; i < 16; ++i) nibble[i] = static_cast<std::uint8_t>(word >> 4 * i & 15);
  return load_u8(nibble);
#endif
}

/// 64 bytes, each 0 .. 63, as 48 bytes: one string of bits, four codes in three bytes.
PRISMAQUANT_INLINE void store_sextets(std::uint8_t* out, i32 bytes) {
#if defined(PRISMAQUANT_AVX512)
  __m512i const words = _mm512_maddubs_epi16((__m512i)bytes, _mm512_set1_epi16(0x4001));  // even + 64 * odd
  __m512i const three = _mm512_madd_epi16(words, _mm512_set1_epi32(0x10000001));          // even + 4096 * odd
  __m512i const within = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
  __m512i const across = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
  __m512i const packed = _mm512_permutexvar_epi32(across, _mm512_shuffle_epi8(three, within));
  _mm512_mask_storeu_epi32(out, 0x0fff, packed);
#else
  std::uint32_t four[16];
  store(four, bytes);
  PRISMAQUANT_UNROLL
  for (int i = 0; i < 16; ++i) {
    std::uint32_t const v = four[i];
    std::uint32_t const three = (v & 63u) | (v >> 2 & 0xfc0u) | (v >> 4 & 0x3f000u) | (v >> 6 & 0xfc0000u);
    out[3 * i] = static_cast<std::uint8_t>(three);
    out[3 * i + 1] = static_cast<std::uint8_t>(three >> 8);
    out[3 * i + 2] = static_cast<std::uint8_t>(three >> 16);
  }
#endif
}

/// 16 codes of 6 bits from 12 bytes. Bits above the low six of a lane are unspecified.
PRISMAQUANT_INLINE i32 load_sextets(std::uint8_t const* p) {
  std::uint32_t word[3];
  __builtin_memcpy(word, p, sizeof word);
  std::uint64_t const low = word[0] | std::uint64_t{word[1]} << 32, high = word[1] >> 16 | std::uint64_t{word[2]} << 16;
#if defined(PRISMAQUANT_AVX512)
  __m512i const all = _mm512_inserti64x4(_mm512_set1_epi64(static_cast<long long>(low)),
                                         _mm256_set1_epi64x(static_cast<long long>(high)), 1);
#if defined(PRISMAQUANT_VBMI)
  __m512i const from = _mm512_setr_epi64(0x0600000000, 0x120000000c, 0x1e00000018, 0x2a00000024, 0x0600000000,
                                         0x120000000c, 0x1e00000018, 0x2a00000024);
  return (i32)_mm512_multishift_epi64_epi8(from, all);
#else
  __m512i const shift = _mm512_setr_epi64(0, 12, 24, 36, 0, 12, 24, 36);
  __m512i const two = _mm512_srlv_epi64(all, shift);  // codes 2 k and 2 k + 1 in the low 12 bits of qword k
  return (i32)_mm512_mask_blend_epi32(0xaaaa, two, _mm512_slli_epi64(two, 26));
#endif
#else
  std::uint8_t code[16];
  PRISMAQUANT_UNROLL
  for (int i = 0; i < 8; ++i) {
    code[i] = static_cast<std::uint8_t>(low >> 6 * i);
    code[8 + i] = static_cast<std::uint8_t>(high >> 6 * i);
  }
  return load_u8(code);
#endif
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
