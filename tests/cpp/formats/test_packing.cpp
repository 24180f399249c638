#include <cstdint>
#include <random>
#include <vector>

#include "prismaquant/formats/extra.hpp"
#include "support/catch.hpp"

using namespace prismaquant;

TEMPLATE_TEST_CASE("codes come back from any place, whatever was there before", "", packed_nibbles,
                   packed_nibbles_high_first, packed_int32_nibbles, packed_sextets, plain_words<std::uint8_t>) {
  using word = typename TestType::word;
  constexpr std::size_t columns = 64;
  std::size_t const words = TestType::words(columns);
  std::size_t const bits = std::min<std::size_t>(8, 8 * sizeof(word) * words / columns);
  std::vector<word> memory(2 * words);
  matrix_view<word> const view{memory.data(), 2, words, static_cast<std::ptrdiff_t>(words), 1};
  std::vector<std::uint8_t> expected(2 * columns);
  std::mt19937 generator(1);
  for (int i = 0; i < 5000; ++i) {
    std::size_t const r = generator() % 2u, c = generator() % columns;
    auto const code = static_cast<std::uint8_t>(generator() % (1u << bits));
    TestType::put(view, r, c, code);
    expected[r * columns + c] = code;
    if (i % 100 != 0) continue;
    for (std::size_t k = 0; k < expected.size(); ++k)
      REQUIRE(TestType::get(view, k / columns, k % columns) == expected[k]);
  }
}

TEST_CASE("places of codes are those of the published layouts") {
  std::vector<std::uint8_t> bytes(3);
  matrix_view<std::uint8_t> const row{bytes.data(), 1, 3, 3, 1};
  packed_nibbles::put(row, 0, 0, 0x1);
  packed_nibbles::put(row, 0, 1, 0x2);
  REQUIRE(bytes[0] == 0x21);
  packed_nibbles_high_first::put(row, 0, 0, 0x1);
  packed_nibbles_high_first::put(row, 0, 1, 0x2);
  REQUIRE(bytes[0] == 0x12);
  for (std::size_t c = 0; c < 4; ++c) packed_sextets::put(row, 0, c, static_cast<std::uint8_t>(c + 0x21));
  REQUIRE((bytes[0] | bytes[1] << 8 | bytes[2] << 16) == (0x21 | 0x22 << 6 | 0x23 << 12 | 0x24 << 18));
  std::vector<std::int32_t> words(1);
  for (std::size_t c = 0; c < 8; ++c)
    packed_int32_nibbles::put({words.data(), 1, 1, 1, 1}, 0, c, static_cast<std::uint8_t>(8 + c));
  REQUIRE(static_cast<std::uint32_t>(words[0]) == 0xfedcba98u);
}

TEST_CASE("zero points are packed along the rows") {
  REQUIRE(packed_zero_points::rows(9, 3) == 2);
  REQUIRE(packed_zero_points::columns(9, 3) == 3);
  std::vector<std::int32_t> words(6);
  matrix_view<std::int32_t> const view{words.data(), 2, 3, 3, 1};
  packed_zero_points::put(view, 1, 2, 0xa);
  packed_zero_points::put(view, 8, 0, 0xb);
  REQUIRE(words == std::vector<std::int32_t>{0, 0, 0xa0, 0xb, 0, 0});
  REQUIRE(packed_zero_points::get(view, 1, 2) == 0xa);
}
