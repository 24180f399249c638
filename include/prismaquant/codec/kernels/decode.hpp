/// @file
/// Decoding a row: element * scale in float32, stored as such or rounded to bfloat16.
///
/// An output that is larger than the caches is written past them: a plain store first reads the line that it is about
/// to overwrite, which doubles the traffic. Past the caches means whole aligned lines, so rows whose address is not a
/// multiple of 16 bytes are written plainly.
#pragma once

#include "prismaquant/codec/kernels/elements.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

enum class output { float32, bfloat16 };

template <output Out>
inline constexpr std::size_t output_bytes = Out == output::float32 ? 4 : 2;

/// Nearest bfloat16 as low 16 bits, `bfloat16::round`: NaN stays NaN, overflow gives infinity.
PRISMAQUANT_INLINE i32 round_bf16(f32 x) {
  i32 const u = bits(x);
  i32 const nearest = shift_right(u + splat(0x7fff) + (shift_right(u, 16) & splat(1)), 16);
  return select(less(splat(infinity_bits), magnitude_bits(x)), shift_right(u, 16) | splat(0x40), nearest);
}

/// 32 decoded values to elements i .. i + 31 of a row.
template <output Out, how How>
PRISMAQUANT_INLINE void put_32(void* out, std::size_t i, f32 a, f32 b) {
  if constexpr (Out == output::float32) {
    auto* const to = static_cast<float*>(out) + i;
    store_how<How>(to, a);
    store_how<How>(to + 16, b);
  } else {
    store_u16_how<How>(static_cast<std::uint16_t*>(out) + i, round_bf16(a), round_bf16(b));
  }
}

/// Elements i .. i + 15 of packed codes as floats.
template <class Element>
PRISMAQUANT_INLINE f32 elements(std::uint8_t const* codes, std::size_t i) {
  if constexpr (Element::bits_per_code == 4) {
    return Element::decode(load_nibbles(codes + i / 2));
  } else {
    return Element::decode(load_u8(codes + i));
  }
}

/// Sixteen groups from element `i` on.
template <class Scale, class Element, output Out, how How>
[[gnu::noinline]] void decode_chunk(std::uint8_t const* codes, float const* factors, void* out,
                                    std::size_t i) noexcept {
  for (std::size_t g = 0; g < 16 * Scale::group; g += 32) {
    f32 const a = splat(factors[g / Scale::group]), b = splat(factors[(g + 16) / Scale::group]);
    put_32<Out, How>(out, i + g, elements<Element>(codes, i + g) * a, elements<Element>(codes, i + g + 16) * b);
  }
}

template <class Scale, class Element, output Out, how How>
PRISMAQUANT_INLINE void decode_groups_how(std::uint8_t const* codes, std::uint8_t const* scales, std::size_t count,
                                          float global_scale, void* out) {
  constexpr std::size_t chunk = 16 * Scale::group;
  f32 const divisor = splat(global_scale);
  alignas(64) float factors[16];
  std::size_t i = 0;
  for (; i + chunk <= count; i += chunk) {
    store(factors, Scale::decode(load_u8(scales + i / Scale::group), divisor));
    PRISMAQUANT_UNROLL
    for (std::size_t byte = 0; byte < chunk * Element::bits_per_code / 8; byte += 64) {
      prefetch(codes, i * Element::bits_per_code / 8 + byte + 1024);
    }
    decode_chunk<Scale, Element, Out, How>(codes, factors, out, i);
  }
  if (i < count) {
    constexpr std::size_t code_bytes = chunk * Element::bits_per_code / 8;
    std::uint8_t rest_codes[code_bytes] = {}, rest_scales[16] = {};
    alignas(64) unsigned char rest[chunk * output_bytes<Out>];
    __builtin_memcpy(rest_codes, codes + i * Element::bits_per_code / 8, (count - i) * Element::bits_per_code / 8);
    __builtin_memcpy(rest_scales, scales + i / Scale::group, (count - i) / Scale::group);
    store(factors, Scale::decode(load_u8(rest_scales), divisor));
    decode_chunk<Scale, Element, Out, how::plain>(rest_codes, factors, rest, 0);
    __builtin_memcpy(static_cast<char*>(out) + i * output_bytes<Out>, rest, (count - i) * output_bytes<Out>);
  }
}

template <class Scale, class Element, output Out>
void decode_groups(std::uint8_t const* codes, std::uint8_t const* scales, std::size_t count, float global_scale,
                   void* out, bool stream) noexcept {
  with_stores(out, stream, [&](auto way) {
    decode_groups_how<Scale, Element, Out, decltype(way)::value>(codes, scales, count, global_scale, out);
  });
}

/// A row of `Bytes`-wide codes under one scale; `value` turns element i into 16 floats.
template <output Out, std::size_t Bytes, class Value>
PRISMAQUANT_INLINE void decode_row(void const* codes, std::size_t count, void* out, bool stream, Value&& value) {
  with_stores(out, stream, [&](auto way) {
    auto const* const from = static_cast<std::uint8_t const*>(codes);
    std::size_t i = 0;
    for (; i + 32 <= count; i += 32) {
      prefetch(from, i * Bytes + 2048);
      put_32<Out, decltype(way)::value>(out, i, value(from, i), value(from, i + 16));
    }
    if (i < count) {
      std::uint8_t rest_codes[32 * Bytes] = {};
      alignas(64) unsigned char rest[32 * output_bytes<Out>];
      __builtin_memcpy(rest_codes, from + i * Bytes, (count - i) * Bytes);
      put_32<Out, how::plain>(rest, 0, value(rest_codes, 0), value(rest_codes, 16));
      __builtin_memcpy(static_cast<char*>(out) + i * output_bytes<Out>, rest, (count - i) * output_bytes<Out>);
    }
  });
}

template <class Element, output Out>
void decode_scaled(void const* codes, std::size_t count, float scale, void* out, bool stream) noexcept {
  f32 const factor = splat(scale);
  decode_row<Out, 1>(codes, count, out, stream,
                     [&](std::uint8_t const* from, std::size_t i) { return elements<Element>(from, i) * factor; });
}

/// bfloat16 codes; NaN codes give the one NaN of the scalar codec.
template <output Out>
void decode_bf16(void const* codes, std::size_t count, float, void* out, bool stream) noexcept {
  decode_row<Out, 2>(codes, count, out, stream, [&](std::uint8_t const* from, std::size_t i) {
    i32 const u = load_u16(reinterpret_cast<std::uint16_t const*>(from + 2 * i)) << 16;
    i32 const nan = less(splat(infinity_bits), u & splat(0x7fffffff));
    return floats(select(nan, (u & splat(INT32_MIN)) | splat(0x7fc00000), u));
  });
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
