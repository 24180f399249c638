#include <array>
#include <numeric>
#include <span>
#include <vector>

#include "prismaquant/core/dense_view.hpp"
#include "prismaquant/core/packing.hpp"
#include "support/catch.hpp"

using namespace prismaquant;

TEST_CASE("a view walks any strides") {
  std::vector<int> elements(12);
  std::iota(elements.begin(), elements.end(), 0);
  auto const dense = view(std::span<int>(elements), 3, 4);
  REQUIRE(dense(2, 1) == 9);
  matrix_view<int> const transposed{elements.data(), 4, 3, 1, 4};
  REQUIRE(transposed(1, 2) == 9);
  matrix_view<int> const reversed{elements.data() + 11, 3, 4, -4, -1};
  REQUIRE(reversed(0, 0) == 11);
  REQUIRE(reversed(2, 3) == 0);
  REQUIRE(dense.part(1, 2, 2, 2)(1, 1) == 11);
  matrix_view<int const> const readable = dense;
  REQUIRE(readable(0, 3) == 3);
}

TEST_CASE("a span of the wrong size is refused") {
  std::array<float, 5> elements{};
  REQUIRE_THROWS_AS(view(std::span<float>(elements), 2, 3), shape_error);
  REQUIRE_THROWS_WITH(view(std::span<float>(elements), 2, 3), "a view of 2 x 3 needs 6 elements, the span holds 5");
}

TEST_CASE("nibbles: the even column is the low half, and a put changes only its own") {
  std::vector<std::uint8_t> bytes(4, 0xff);
  matrix_view<std::uint8_t> const words{bytes.data(), 2, 2, 2, 1};
  packed_nibbles::put(words, 0, 0, 0x3);
  packed_nibbles::put(words, 0, 1, 0xa);
  packed_nibbles::put(words, 1, 3, 0x0);
  REQUIRE(bytes == std::vector<std::uint8_t>{0xa3, 0xff, 0xff, 0x0f});
  REQUIRE(packed_nibbles::get(words, 0, 1) == 0xa);
  REQUIRE(packed_nibbles::get(words, 1, 2) == 0xf);
}
