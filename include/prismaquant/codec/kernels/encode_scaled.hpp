/// @file
/// Encoding a row under one scale that is already known: FP8, and BF16, whose scale is 1.
#pragma once

#include "prismaquant/codec/kernels/encode_groups.hpp"
#include "prismaquant/codec/kernels/lines.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// Calls `body(x, i)` with weights i .. i + 63 as four vectors, and `last(x, i, n)` with the n < 64 that remain, padded
/// with zeros.
template <input In, class Body, class Last>
PRISMAQUANT_INLINE void for_each_64(void const* weights, std::size_t count, Body&& body, Last&& last) {
  std::size_t i = 0;
  auto const four = [](void const* from, std::size_t at) {
    return x64{load_weights<In>(from, at), load_weights<In>(from, at + 16), load_weights<In>(from, at + 32),
               load_weights<In>(from, at + 48)};
  };
  for (; i + 64 <= count; i += 64) {
    PRISMAQUANT_UNROLL
    for (std::size_t byte = 0; byte < 64 * input_bytes<In>; byte += 64) {
      prefetch(weights, i * input_bytes<In> + byte + prefetch_bytes);
    }
    body(four(weights, i), i);
  }
  if (i < count) {
    alignas(64) unsigned char rest[64 * input_bytes<In>] = {};
    __builtin_memcpy(rest, static_cast<char const*>(weights) + i * input_bytes<In>, (count - i) * input_bytes<In>);
    last(four(rest, 0), i, count - i);
  }
}

/// Largest magnitude, as bits; four accumulators, because one maximum waits for the last.
template <input In>
std::uint32_t largest(void const* weights, std::size_t count) noexcept {
  i32 m[4] = {splat(0), splat(0), splat(0), splat(0)};
  auto const take = [&](x64 const& x, auto...) PRISMAQUANT_INLINE_LAMBDA {
    PRISMAQUANT_UNROLL
    for (int k = 0; k < 4; ++k) m[k] = max(m[k], magnitude_bits(x.v[k]));
  };
  for_each_64<In>(weights, count, take, take);
  return static_cast<std::uint32_t>(horizontal_max(max(max(m[0], m[1]), max(m[2], m[3]))));
}

/// Bytes of an element codec: nearest code of weight / scale, the exact quotient.
template <class Element, input In>
void encode_scaled(void const* weights, std::size_t count, float scale, void* codes, bool stream) noexcept {
  f32 const divisor = splat(scale);
  auto* const out = static_cast<std::uint8_t*>(codes);
  auto const line = [&](x64 const& x) PRISMAQUANT_INLINE_LAMBDA {
    f32 const quotients[4] = {x.v[0] / divisor, x.v[1] / divisor, x.v[2] / divisor, x.v[3] / divisor};
    return encode_line<Element>(quotients);
  };
  with_stores(out, stream, [&](auto way) PRISMAQUANT_INLINE_LAMBDA {
    for_each_64<In>(
        weights, count,
        [&](x64 const& x, std::size_t i)
            PRISMAQUANT_INLINE_LAMBDA { store_how<decltype(way)::value>(out + i, line(x)); },
        [&](x64 const& x, std::size_t i, std::size_t n) PRISMAQUANT_INLINE_LAMBDA {
          i32 const rest = line(x);
          __builtin_memcpy(out + i, &rest, n);
        });
  });
}

/// bfloat16 of finite weights: nearest, ties to even, the largest finite value at most.
template <input In>
void encode_bf16(void const* weights, std::size_t count, float, void* codes, bool) noexcept {
  auto* const out = static_cast<std::uint16_t*>(codes);
  auto const put = [&](x64 const& x, std::uint16_t* to) PRISMAQUANT_INLINE_LAMBDA {
    PRISMAQUANT_UNROLL
    for (int k = 0; k < 4; ++k) {
      i32 const magnitude = magnitude_bits(x.v[k]);
      i32 const odd = shift_right(magnitude, 16) & splat(1);
      i32 const code = min(shift_right(magnitude + splat(0x7fff) + odd, 16), splat(0x7f7f));
      store_u16(to + 16 * k, code | shift_right(bits(x.v[k]) & splat(INT32_MIN), 16));
    }
  };
  for_each_64<In>(
      weights, count, [&](x64 const& x, std::size_t i) PRISMAQUANT_INLINE_LAMBDA { put(x, out + i); },
      [&](x64 const& x, std::size_t i, std::size_t n) PRISMAQUANT_INLINE_LAMBDA {
        std::uint16_t rest[64];
        put(x, rest);
        __builtin_memcpy(out + i, rest, n * 2);
      });
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
