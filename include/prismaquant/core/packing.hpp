/// @file
/// How element codes lie in memory: one row of codes is a run of storage words, rows never share a word.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "prismaquant/core/matrix_view.hpp"

namespace prismaquant {

/// Codes of `Bits` bits, a whole number to a word, from its lowest bits up (with `HighFirst` from its highest down).
/// Needs a row length that is a multiple of `codes_per_word`, or words that were zeroed before.
template <class Word, int Bits, bool HighFirst = false>
struct packed_codes {
  using word = Word;
  static constexpr std::size_t codes_per_word = 8 * sizeof(Word) / Bits;

  /// Words that hold a row of so many codes.
  static constexpr std::size_t words(std::size_t columns) noexcept {
    return (columns + codes_per_word - 1) / codes_per_word;
  }
  static constexpr void put(matrix_view<word> words, std::size_t r, std::size_t c, std::uint8_t code) noexcept {
    word& w = words(r, c / codes_per_word);
    int const shift = shift_of(c);
    w = static_cast<word>((static_cast<bits_type>(w) & ~(mask << shift)) | (bits_type{code} << shift));
  }
  static constexpr std::uint8_t get(matrix_view<word const> words, std::size_t r, std::size_t c) noexcept {
    return static_cast<std::uint8_t>((static_cast<bits_type>(words(r, c / codes_per_word)) >> shift_of(c)) & mask);
  }

 private:
  using bits_type = std::make_unsigned_t<std::conditional_t<(sizeof(Word) < 4), std::uint32_t, Word>>;
  static constexpr bits_type mask = (bits_type{1} << Bits) - 1;

  static constexpr int shift_of(std::size_t c) noexcept {
    int const place = static_cast<int>(c % codes_per_word) * Bits;
    return HighFirst ? static_cast<int>(8 * sizeof(Word)) - Bits - place : place;
  }
};

/// Two 4-bit codes per byte, the even column in the low nibble (compressed-tensors, OCP MX).
using packed_nibbles = packed_codes<std::uint8_t, 4>;
/// Two 4-bit codes per byte, the even column in the high nibble (bitsandbytes).
using packed_nibbles_high_first = packed_codes<std::uint8_t, 4, true>;
/// Eight 4-bit codes per int32, column 8k in the lowest bits (compressed-tensors `pack-quantized`).
using packed_int32_nibbles = packed_codes<std::int32_t, 4>;

/// Four 6-bit codes in three bytes, a row being one little-endian string of bits (compressed-tensors
/// `mxfp6-pack-quantized`). Needs a row length that is a multiple of 4.
struct packed_sextets {
  using word = std::uint8_t;

  static constexpr std::size_t words(std::size_t columns) noexcept { return (6 * columns + 7) / 8; }
  static constexpr void put(matrix_view<word> words, std::size_t r, std::size_t c, std::uint8_t code) noexcept {
    std::size_t const byte = 6 * c / 8;
    auto const shift = static_cast<unsigned>(6 * c % 8);
    replace(words(r, byte), 0x3fu << shift, unsigned{code} << shift);
    if (shift > 2) replace(words(r, byte + 1), 0x3fu >> (8 - shift), unsigned{code} >> (8 - shift));
  }
  static constexpr std::uint8_t get(matrix_view<word const> words, std::size_t r, std::size_t c) noexcept {
    std::size_t const byte = 6 * c / 8;
    auto const shift = static_cast<unsigned>(6 * c % 8);
    unsigned const high = shift > 2 ? unsigned{words(r, byte + 1)} << 8 : 0u;
    return static_cast<std::uint8_t>(((high | words(r, byte)) >> shift) & 0x3fu);
  }

 private:
  static constexpr void replace(word& w, unsigned mask, unsigned value) noexcept {
    w = static_cast<word>((w & ~mask) | (value & mask));
  }
};

/// One code per word.
template <class Word>
struct plain_words {
  using word = Word;
  static constexpr std::size_t codes_per_word = 1;

  static constexpr std::size_t words(std::size_t columns) noexcept { return columns; }
  static constexpr void put(matrix_view<word> words, std::size_t r, std::size_t c, Word code) noexcept {
    words(r, c) = code;
  }
  static constexpr Word get(matrix_view<word const> words, std::size_t r, std::size_t c) noexcept {
    return words(r, c);
  }
};

}  // namespace prismaquant
