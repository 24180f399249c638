#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "prismaquant/core/float_types.hpp"
#include "prismaquant/formats/minifloat.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using binary16 = minifloat<5, 10, special_values::ieee>;

TEST_CASE("all 65536 binary16 codes convert to the value of the bits") {
  for (std::uint32_t code = 0; code < 0x10000; ++code) {
    float const converted = float16{static_cast<std::uint16_t>(code)};
    float const expected = binary16::decode(static_cast<std::uint16_t>(code));
    if (std::isnan(expected)) {
      REQUIRE(std::isnan(converted));
    } else {
      REQUIRE(std::bit_cast<std::uint32_t>(converted) == std::bit_cast<std::uint32_t>(expected));
    }
  }
}

TEST_CASE("bfloat16 rounds to nearest, ties to even, and keeps NaN and infinity") {
  REQUIRE(bfloat16::round(1.0f + 0x1p-8f).bits == 0x3f80);             // tie to even
  REQUIRE(bfloat16::round(1.0f + 3 * 0x1p-8f).bits == 0x3f82);         // tie to even, upwards
  REQUIRE(bfloat16::round(1.0f + 0x1p-8f + 0x1p-23f).bits == 0x3f81);  // just above the tie
  REQUIRE(bfloat16::round(std::numeric_limits<float>::max()).bits == 0x7f80);
  REQUIRE(bfloat16::round(-std::numeric_limits<float>::infinity()).bits == 0xff80);
  REQUIRE(std::isnan(float(bfloat16::round(std::bit_cast<float>(0x7f800001u)))));
  for (std::uint32_t code = 0; code < 0x10000; ++code) {
    bfloat16 const value{static_cast<std::uint16_t>(code)};
    if (!std::isnan(float(value))) REQUIRE(bfloat16::round(float(value)).bits == code);
  }
}

TEST_CASE("float16 rounds to nearest, ties to even, over the whole range, and keeps NaN and infinity") {
  for (std::uint32_t code = 0; code < 0x7c00; ++code) {
    float const value = float16{static_cast<std::uint16_t>(code)};
    float const next = code == 0x7bff ? 65536.0f : float(float16{static_cast<std::uint16_t>(code + 1)});
    float const middle = (value + next) / 2;
    std::uint32_t const even = code % 2 == 0 ? code : code + 1;
    for (std::uint32_t const sign : {0u, 0x8000u}) {
      float const s = sign != 0 ? -1.0f : 1.0f;
      REQUIRE(float16::round(s * value).bits == (sign | code));
      REQUIRE(float16::round(s * middle).bits == (sign | even));
      REQUIRE(float16::round(s * std::nextafter(middle, 0.0f)).bits == (sign | code));
      REQUIRE(float16::round(s * std::nextafter(middle, 1e9f)).bits == (sign | (code + 1)));
    }
  }
  REQUIRE(float16::round(-std::numeric_limits<float>::infinity()).bits == 0xfc00);
  REQUIRE(float16::round(1e-40f).bits == 0);
  REQUIRE(std::isnan(float(float16::round(std::bit_cast<float>(0x7f800001u)))));
}

TEST_CASE("finiteness is decided on the bits") {
  REQUIRE(is_finite(0.0f));
  REQUIRE(is_finite(-std::numeric_limits<float>::max()));
  REQUIRE_FALSE(is_finite(std::numeric_limits<float>::infinity()));
  REQUIRE_FALSE(is_finite(std::numeric_limits<float>::quiet_NaN()));
}
