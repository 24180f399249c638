/// @file
/// Encoding a row in groups of 16 or 32 elements with one scale each: NVFP4, MXFP4, MXFP8.
///
/// 1. Sixteen groups at a time: their largest magnitudes as 16 lanes, hence 16 scale codes and 16 divisors.
/// 2. Then the elements, four vectors to one store. A quotient waits for its scale, a scale for a division, that for a
///    maximum: some 90 cycles in which nothing else could run. So step 1 goes ahead over a few thousand bytes, which
///    stay in the first-level cache, before step 2 returns to them; the two then overlap from one round to the next.
/// 3. Step 1 asks for the line a few KiB ahead, which the hardware prefetcher of a sequential stream does too late.
#pragma once

#include "prismaquant/codec/kernels/elements.hpp"
#include "prismaquant/simd/transpose.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

inline constexpr std::size_t groups_at_once = 16;
inline constexpr std::size_t prefetch_bytes = 4096;

/// Scale codes and factors of 16 groups from weight `i` on. Returns their largest magnitudes. A call of its own: some
/// 50 nanoseconds of work, which would otherwise be in the program three times.
template <class Scale, input In>
[[gnu::noinline]] i32 encode_scales(void const* weights, std::size_t i, f32 global_scale, std::uint8_t* codes,
                                    float* factors) noexcept {
  i32 largest[groups_at_once];
  PRISMAQUANT_UNROLL
  for (std::size_t g = 0; g < groups_at_once; ++g) {
    std::size_t const at = i + g * Scale::group;
    i32 v = magnitude_bits(load_weights<In>(weights, at));
    if constexpr (Scale::group == 32) v = max(v, magnitude_bits(load_weights<In>(weights, at + 16)));
    largest[g] = v;
    constexpr std::size_t group_bytes = Scale::group * input_bytes<In>;
    PRISMAQUANT_UNROLL
    for (std::size_t byte = 0; byte < group_bytes; byte += 64) {
      if (group_bytes >= 64 || g % 2 == 0)
        prefetch(weights, i * input_bytes<In> + g * group_bytes + byte + prefetch_bytes);
    }
  }
  i32 const amax = largest_lanes(largest);
  i32 const code = Scale::choose(amax, global_scale);
  store_bytes(codes, code);
  store(factors, Scale::factor(code, global_scale));
  return amax;
}

/// Codes of the elements of 16 groups from weight `i` on.
template <class Scale, class Element, input In>
[[gnu::noinline]] void encode_elements(void const* weights, std::size_t i, float const* factors,
                                       std::uint8_t* out) noexcept {
  constexpr std::size_t vectors = groups_at_once * Scale::group / 16;
  for (std::size_t v = 0; v < vectors; v += 4) {
    auto const quotient = [&](std::size_t k) {
      f32 const factor = splat(factors[(v + k) * 16 / Scale::group]);
      return Scale::quotient(load_weights<In>(weights, i + 16 * (v + k)), factor);
    };
    if constexpr (Element::bits_per_code == 4) {
      store_nibbles(out + v * 8, Element::encode(quotient(0)), Element::encode(quotient(1)),
                    Element::encode(quotient(2)), Element::encode(quotient(3)));
    } else {
      store_bytes(out + v * 16, Element::encode(quotient(0)), Element::encode(quotient(1)),
                  Element::encode(quotient(2)), Element::encode(quotient(3)));
    }
  }
}

/// Encodes `count` weights, a multiple of the group. False if any is NaN or infinite; the output is then unspecified.
template <class Scale, class Element, input In>
bool encode_groups(void const* weights, std::size_t count, std::uint8_t* codes, std::uint8_t* scales,
                   float global_scale) noexcept {
  constexpr std::size_t chunk = groups_at_once * Scale::group;
  constexpr std::size_t ahead = 4;  // chunks whose scales are chosen before their elements
  constexpr auto code_bytes = [](std::size_t elements) { return elements * Element::bits_per_code / 8; };
  alignas(64) float factors[ahead * groups_at_once];
  f32 const divisor = splat(global_scale);
  i32 largest = splat(0);
  std::size_t i = 0;
  auto const some = [&](auto chunks) {
    constexpr std::size_t n = decltype(chunks)::value;
    for (; i + n * chunk <= count; i += n * chunk) {
      for (std::size_t k = 0; k < n; ++k) {
        largest = max(largest,
                      encode_scales<Scale, In>(weights, i + k * chunk, divisor, scales + (i + k * chunk) / Scale::group,
                                               factors + k * groups_at_once));
      }
      for (std::size_t k = 0; k < n; ++k) {
        encode_elements<Scale, Element, In>(weights, i + k * chunk, factors + k * groups_at_once,
                                            codes + code_bytes(i + k * chunk));
      }
    }
  };
  some(size_constant<ahead>{});
  some(size_constant<1>{});
  if (i < count) {  // less than a chunk: through a copy, so that nothing outside of the row is touched
    alignas(64) unsigned char rest[chunk * input_bytes<In>] = {};
    alignas(64) std::uint8_t rest_codes[code_bytes(chunk)];
    std::uint8_t rest_scales[groups_at_once];
    __builtin_memcpy(rest, static_cast<char const*>(weights) + i * input_bytes<In>, (count - i) * input_bytes<In>);
    largest = max(largest, encode_scales<Scale, In>(rest, 0, divisor, rest_scales, factors));
    encode_elements<Scale, Element, In>(rest, 0, factors, rest_codes);
    __builtin_memcpy(codes + code_bytes(i), rest_codes, code_bytes(count - i));
    __builtin_memcpy(scales + i / Scale::group, rest_scales, (count - i) / Scale::group);
  }
  return horizontal_max(largest) < infinity_bits;
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
