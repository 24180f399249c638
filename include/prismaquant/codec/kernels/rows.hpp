/// @file
/// What kernels on rows share: how they walk over weights, and how far ahead they ask for memory.
#pragma once

#include "prismaquant/simd/memory.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// Groups that are handled together, one per lane.
inline constexpr std::size_t groups_at_once = 16;

/// How far ahead sequential kernels ask for memory; the hardware prefetcher of one stream does too late.
inline constexpr std::size_t prefetch_bytes = 4096;

/// Bytes of weights whose scales are chosen before their elements are encoded. They fit the first-level cache, and the
/// scales of the first are long known when the last is chosen: a quotient waits for its scale, a scale for a division,
/// that for a maximum, some 90 cycles in which nothing else could run.
inline constexpr std::size_t round_bytes = 4096;

/// Asks for half of the lines that `Bytes` at `byte` will be followed by two rounds later: choosing scales and encoding
/// each ask for a half, so that memory is never idle.
template <std::size_t Bytes, std::size_t Half>
PRISMAQUANT_INLINE void prefetch_half(void const* weights, std::size_t byte) {
  PRISMAQUANT_UNROLL
  for (std::size_t line = Half * 64; line < Bytes; line += 128) prefetch(weights, byte + line + 2 * round_bytes);
}

/// Calls `body(from, i)` for every `Elements` weights, `from` being where element i lies in memory minus i; what
/// remains is padded with zeros and given to `last(copy, i, n)`.
template <std::size_t Elements, input In, class Body, class Last>
PRISMAQUANT_INLINE void for_each_chunk(void const* weights, std::size_t count, Body&& body, Last&& last) {
  std::size_t i = 0;
  for (; i + Elements <= count; i += Elements) body(weights, i);
  if (i < count) {  // through a copy, so that nothing outside of the run is touched
    alignas(64) unsigned char rest[Elements * input_bytes<In>] = {};
    __builtin_memcpy(rest, static_cast<char const*>(weights) + i * input_bytes<In>, (count - i) * input_bytes<In>);
    last(static_cast<void const*>(rest), i, count - i);
  }
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
