// The row of 32 bfloat16 values that the golden bytes are for: 0, 0.1, -0.2, ... 1.5, then -0.07, -0.06, ... 0.08.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "prismaquant/core/float_types.hpp"

namespace prismaquant::test {

inline std::vector<bfloat16> golden_row() {
  std::vector<bfloat16> row;
  for (unsigned const bits :
       {0x0000u, 0x3dcdu, 0xbe4du, 0x3e9au, 0xbecdu, 0x3f00u, 0xbf1au, 0x3f33u, 0xbf4du, 0x3f66u, 0xbf80u,
        0x3f8du, 0xbf9au, 0x3fa6u, 0xbfb3u, 0x3fc0u, 0xbd8fu, 0xbd76u, 0xbd4du, 0xbd24u, 0xbcf6u, 0xbca4u,
        0xbc24u, 0x0000u, 0x3c24u, 0x3ca4u, 0x3cf6u, 0x3d24u, 0x3d4du, 0x3d76u, 0x3d8fu, 0x3da4u}) {
    row.push_back({static_cast<std::uint16_t>(bits)});
  }
  return row;
}

// Words as hexadecimal digits, the highest digit of each word first.
template <class Word>
std::string hex(std::vector<Word> const& words) {
  std::string text;
  char const* const digits = "0123456789abcdef";
  for (auto const word : words) {
    for (int shift = 8 * static_cast<int>(sizeof(Word)) - 4; shift >= 0; shift -= 4)
      text += digits[(word >> shift) & 0xf];
  }
  return text;
}

}  // namespace prismaquant::test
