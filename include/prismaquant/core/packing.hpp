/// @file
/// How element codes lie in memory: one row of codes is a run of storage words, rows never share a word.
#pragma once

#include <cstddef>
#include <cstdint>

#include "prismaquant/core/matrix_view.hpp"

namespace prismaquant {

/// Two 4-bit codes per byte, the even column in the low nibble (compressed-tensors, OCP MX). Needs an even row length.
struct packed_nibbles {
  using word = std::uint8_t;
  static constexpr std::size_t codes_per_word = 2;

  static constexpr void put(matrix_view<word> words, std::size_t r, std::size_t c, std::uint8_t code) noexcept {
    word& w = words(r, c / 2);
    w = static_cast<word>(c % 2 == 0 ? (w & 0xf0u) | code : (w & 0x0fu) | (code << 4));
  }
  static constexpr std::uint8_t get(matrix_view<word const> words, std::size_t r, std::size_t c) noexcept {
    return static_cast<std::uint8_t>(c % 2 == 0 ? words(r, c / 2) & 0x0fu : words(r, c / 2) >> 4);
  }
};

/// One code per word.
template <class Word>
struct plain_words {
  using word = Word;
  static constexpr std::size_t codes_per_word = 1;

  static constexpr void put(matrix_view<word> words, std::size_t r, std::size_t c, Word code) noexcept {
    words(r, c) = code;
  }
  static constexpr Word get(matrix_view<word const> words, std::size_t r, std::size_t c) noexcept {
    return words(r, c);
  }
};

}  // namespace prismaquant
