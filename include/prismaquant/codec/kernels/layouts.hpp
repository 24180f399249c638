/// @file
/// Storage layouts on 16 lanes: element codes to and from words, the bytes of `core/packing.hpp`. Words are stored as
/// bytes: all instruction sets here are little-endian.
#pragma once

#include "prismaquant/core/packing.hpp"
#include "prismaquant/simd/packing.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// The lanes of a layout: `put` writes the codes of `vectors` x 16 elements, `get` reads 16 from element i on (bits of
/// a lane above the code's own are unspecified).
template <class Layout>
struct layout_lanes;

template <>
struct layout_lanes<plain_words<std::uint8_t>> {
  static constexpr int vectors = 4;
  static constexpr std::size_t bits_per_code = 8;

  template <how How>
  PRISMAQUANT_INLINE static void put(std::uint8_t* out, i32 const (&c)[vectors]) {
    store_how<How>(out, pack_bytes(c[0], c[1], c[2], c[3]));
  }
  PRISMAQUANT_INLINE static i32 get(std::uint8_t const* codes, std::size_t i) { return load_u8(codes + i); }
};

template <>
struct layout_lanes<plain_words<std::uint16_t>> {
  static constexpr int vectors = 2;
  static constexpr std::size_t bits_per_code = 16;

  template <how How>
  PRISMAQUANT_INLINE static void put(std::uint8_t* out, i32 const (&c)[vectors]) {
    store_how<How>(out, pack_u16(c[0], c[1]));
  }
  PRISMAQUANT_INLINE static i32 get(std::uint8_t const* codes, std::size_t i) {
    return load_u16(reinterpret_cast<std::uint16_t const*>(codes) + i);
  }
};

template <>
struct layout_lanes<packed_nibbles> {
  static constexpr int vectors = 8;
  static constexpr std::size_t bits_per_code = 4;

  template <how How>
  PRISMAQUANT_INLINE static void put(std::uint8_t* out, i32 const (&c)[vectors]) {
    store_how<How>(out, line(c));
  }
  PRISMAQUANT_INLINE static i32 line(i32 const (&c)[vectors]) {
    return pack_nibbles(pack_bytes(c[0], c[1], c[2], c[3]), pack_bytes(c[4], c[5], c[6], c[7]));
  }
  PRISMAQUANT_INLINE static i32 get(std::uint8_t const* codes, std::size_t i) {
    return spread_nibbles(load_u64(codes + i / 2));
  }
};
template <>
struct layout_lanes<packed_int32_nibbles> : layout_lanes<packed_nibbles> {};

template <>
struct layout_lanes<packed_nibbles_high_first> {
  static constexpr int vectors = 8;
  static constexpr std::size_t bits_per_code = 4;

  template <how How>
  PRISMAQUANT_INLINE static void put(std::uint8_t* out, i32 const (&c)[vectors]) {
    i32 const low_first = layout_lanes<packed_nibbles>::line(c);
    i32 const low = splat(0x0f0f0f0f);
    store_how<How>(out, ((low_first & low) << 4) | (shift_right(low_first, 4) & low));
  }
  PRISMAQUANT_INLINE static i32 get(std::uint8_t const* codes, std::size_t i) {
    std::uint64_t const v = load_u64(codes + i / 2);
    constexpr std::uint64_t low = 0x0f0f0f0f0f0f0f0f;
    return spread_nibbles((v & low) << 4 | (v >> 4 & low));
  }
};

template <>
struct layout_lanes<packed_sextets> {
  static constexpr int vectors = 4;
  static constexpr std::size_t bits_per_code = 6;

  template <how>
  PRISMAQUANT_INLINE static void put(std::uint8_t* out, i32 const (&c)[vectors]) {
    store_sextets(out, pack_bytes(c[0], c[1], c[2], c[3]));
  }
  PRISMAQUANT_INLINE static i32 get(std::uint8_t const* codes, std::size_t i) {
    return load_sextets(codes + 3 * i / 4);
  }
};

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
