/// @file
/// Encoding a row in groups of 16 or 32 elements with one scale each: NVFP4, MXFP4, MXFP8.
///
/// 1. Sixteen groups at a time: their largest magnitudes as 16 lanes, hence 16 scale codes and 16 divisors.
/// 2. Then the elements, four vectors to one store. A quotient waits for its scale, a scale for a division, that for a
///    maximum: some 90 cycles in which nothing else could run. So step 1 goes ahead over a few thousand bytes, which
///    stay in the first-level cache, before step 2 returns to them; the two then overlap from one round to the next.
/// 3. Step 1 asks for the line a few KiB ahead, which the hardware prefetcher of a sequential stream does too late.
#pragma once

#include "prismaquant/codec/kernels/lines.hpp"
#include "prismaquant/simd/transpose.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

inline constexpr std::size_t groups_at_once = 16;
inline constexpr std::size_t prefetch_bytes = 4096;

/// Largest magnitudes of 16 groups from weight `i` on. 16-bit weights stay 16 bits wide, because magnitudes compare as
/// integers in either format: the two of a dword are compared in its upper half.
template <std::size_t Group, input In>
PRISMAQUANT_INLINE i32 group_maxima(void const* weights, std::size_t i) {
  i32_register largest[groups_at_once];
  if constexpr (In == input::float32) {
    PRISMAQUANT_UNROLL
    for (std::size_t g = 0; g < groups_at_once; ++g) {
      i32 v = magnitude_bits(load_weights<In>(weights, i + g * Group));
      if constexpr (Group == 32) v = max(v, magnitude_bits(load_weights<In>(weights, i + g * Group + 16)));
      largest[g] = fold_max(v);
    }
    return largest_lanes(largest);
  } else {
    auto const* const p = static_cast<std::uint16_t const*>(weights) + i;
    auto const upper = []<class V>(V v) PRISMAQUANT_INLINE_LAMBDA {
      V const mask = splat_into<V>::value(0x7fff0000);
      return max(v & mask, (v << 16) & mask);
    };
    i32 amax;
    if constexpr (Group == 32) {
      PRISMAQUANT_UNROLL
      for (std::size_t g = 0; g < groups_at_once; ++g) largest[g] = fold_max(upper(load<i32>(p + g * Group)));
      amax = largest_lanes(largest);
    } else if constexpr (sizeof(i32_register) == 64) {  // a register holds two groups: half the work
      PRISMAQUANT_UNROLL
      for (std::size_t g = 0; g < groups_at_once; g += 2) largest[g / 2] = upper(load<i32_register>(p + g * Group));
      amax = largest_halves(largest);
    } else {
      using group_lanes = typename lanes_of<std::int32_t, 8>::type;
      PRISMAQUANT_UNROLL
      for (std::size_t g = 0; g < groups_at_once; ++g) largest[g] = fold_max(upper(load<group_lanes>(p + g * Group)));
      amax = largest_lanes(largest);
    }
    if constexpr (In == input::float16) return bits(widen_float16(shift_right(amax, 16)));
    return amax;
  }
}

/// Bytes of weights whose scales are chosen before their elements: they fit the first-level cache, and the scales of
/// the first are long known when the last is done.
inline constexpr std::size_t round_bytes = 4096;

/// Asks for half of the lines that 16 groups will need four rounds later: both steps ask for a half, so that memory is
/// never idle.
template <std::size_t GroupBytes, std::size_t Half>
PRISMAQUANT_INLINE void prefetch_half(void const* weights, std::size_t byte) {
  constexpr std::size_t chunk = groups_at_once * GroupBytes;
  PRISMAQUANT_UNROLL
  for (std::size_t line = Half * 64; line < chunk; line += 128) {
    prefetch(weights, byte + line + 4 * round_bytes);
  }
}

/// Scale codes and factors of 16 groups from weight `i` on. Returns their largest magnitudes.
template <class Scale, input In>
PRISMAQUANT_INLINE i32 encode_scales(void const* weights, std::size_t i, f32 global_scale, std::uint8_t* codes,
                                     float* factors) noexcept {
  prefetch_half<Scale::group * input_bytes<In>, 0>(weights, i * input_bytes<In>);
  i32 const amax = group_maxima<Scale::group, In>(weights, i);
  i32 const code = Scale::choose(amax, global_scale);
  store_bytes(codes, code);
  store(factors, Scale::factor(code, global_scale));
  return amax;
}

/// Codes of the elements of 16 groups from weight `i` on.
template <class Scale, class Element, input In, how How>
[[gnu::noinline]] void encode_elements(void const* weights, std::size_t i, float const* factors,
                                       std::uint8_t* out) noexcept {
  constexpr int per_line = vectors_per_line<Element>;
  constexpr int vectors = static_cast<int>(groups_at_once * Scale::group / 16);
  prefetch_half<Scale::group * input_bytes<In>, 1>(weights, i * input_bytes<In>);
  for (int v = 0; v < vectors; v += per_line, out += 64) {
    f32 quotients[per_line];
    PRISMAQUANT_UNROLL
    for (int k = 0; k < per_line; ++k) {
      std::size_t const at = static_cast<std::size_t>(v + k) * 16;
      quotients[k] = Scale::quotient(load_weights<In>(weights, i + at), splat(factors[at / Scale::group]));
    }
    store_how<How>(out, encode_line<Element>(quotients));
  }
}

template <class Scale, class Element, input In, how How>
PRISMAQUANT_INLINE bool encode_groups_how(void const* weights, std::size_t count, std::uint8_t* codes,
                                          std::uint8_t* scales, float global_scale) {
  constexpr std::size_t chunk = groups_at_once * Scale::group;
  constexpr auto code_bytes = [](std::size_t elements) { return elements * Element::bits_per_code / 8; };
  constexpr std::size_t chunks_ahead = round_bytes / (chunk * input_bytes<In>);
  alignas(64) float factors[chunks_ahead * groups_at_once];
  f32 const divisor = splat(global_scale);
  i32 largest = splat(0);
  std::size_t i = 0;
  while (i + chunk <= count) {
    std::size_t const whole = (count - i) / chunk;
    std::size_t const n = whole < chunks_ahead ? whole : chunks_ahead;
    for (std::size_t k = 0; k < n; ++k) {
      std::size_t const at = i + k * chunk;
      largest = max(largest, encode_scales<Scale, In>(weights, at, divisor, scales + at / Scale::group,
                                                      factors + k * groups_at_once));
    }
    for (std::size_t k = 0; k < n; ++k, i += chunk) {
      encode_elements<Scale, Element, In, How>(weights, i, factors + k * groups_at_once, codes + code_bytes(i));
    }
  }
  if (i < count) {  // less than a chunk: through a copy, so that nothing outside of the row is touched
    alignas(64) unsigned char rest[chunk * input_bytes<In>] = {};
    alignas(64) std::uint8_t rest_codes[code_bytes(chunk)];
    std::uint8_t rest_scales[groups_at_once];
    __builtin_memcpy(rest, static_cast<char const*>(weights) + i * input_bytes<In>, (count - i) * input_bytes<In>);
    largest = max(largest, encode_scales<Scale, In>(rest, 0, divisor, rest_scales, factors));
    encode_elements<Scale, Element, In, how::plain>(rest, 0, factors, rest_codes);
    __builtin_memcpy(codes + code_bytes(i), rest_codes, code_bytes(count - i));
    __builtin_memcpy(scales + i / Scale::group, rest_scales, (count - i) / Scale::group);
  }
  return horizontal_max(largest) < infinity_bits;
}

/// Encodes `count` weights, a multiple of the group. False if any is NaN or infinite; the output is then unspecified.
template <class Scale, class Element, input In>
bool encode_groups(void const* weights, std::size_t count, std::uint8_t* codes, std::uint8_t* scales,
                   float global_scale, bool stream) noexcept {
  bool finite = false;
  with_stores(codes, stream, [&](auto way) PRISMAQUANT_INLINE_LAMBDA {
    finite = encode_groups_how<Scale, Element, In, decltype(way)::value>(weights, count, codes, scales, global_scale);
  });
  return finite;
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
