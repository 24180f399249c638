#include <cmath>

#include "prismaquant/formats/scale_codecs.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using mx4 = e8m0_scale<e2m1::max_exponent>;
using mx8 = e8m0_scale<e4m3::max_exponent>;

TEST_CASE("E8M0 codes are powers of two, the smallest a float32 subnormal") {
  for (int code = 0; code <= 254; ++code) {
    REQUIRE(mx4::decode(static_cast<std::uint8_t>(code), 1.0f) == std::ldexp(1.0f, code - 127));
  }
}

TEST_CASE("E8M0 from amax rounds the mantissa up from 1.75, as compressed-tensors does") {
  REQUIRE(mx4::from_amax(4.0f, 6.0f, 1.0f) == 127);
  REQUIRE(mx4::from_amax(6.96f, 6.0f, 1.0f) == 127);  // clips to 6
  REQUIRE(mx4::from_amax(7.0f, 6.0f, 1.0f) == 128);   // 1.75 * 4
  REQUIRE(mx8::from_amax(445.0f, 448.0f, 1.0f) == 127);
  REQUIRE(mx8::from_amax(448.0f, 448.0f, 1.0f) == 128);  // 1.75 * 256
}

TEST_CASE("E8M0 never writes the NaN code or the subnormal scale, and gives 1 to a block of zeros") {
  REQUIRE(mx4::from_amax(0.0f, 6.0f, 1.0f) == 127);
  REQUIRE(mx4::from_amax(0x1p-149f, 6.0f, 1.0f) == 1);
  REQUIRE(is_finite(6.0f * mx4::decode(mx4::from_amax(0x1.fffffep127f, 6.0f, 1.0f), 1.0f)));
  REQUIRE(is_finite(448.0f * mx8::decode(mx8::from_amax(0x1.fffffep127f, 448.0f, 1.0f), 1.0f)));
  auto const window = mx4::sweep(1.0f, 6.0f, 1.0f);
  REQUIRE(window.first == 125);
  REQUIRE(window.last == 126);
}

TEST_CASE("an NVFP4 block scale is E4M3(code) / global_scale and never zero") {
  REQUIRE(e4m3_scale::decode(0x7e, 2688.0f) == 448.0f / 2688.0f);
  REQUIRE(e4m3_scale::from_amax(1.5f, 6.0f, 1792.0f) == 0x7e);
  REQUIRE(e4m3_scale::from_amax(0.0f, 6.0f, 1792.0f) == 0x20);
  REQUIRE(e4m3_scale::from_amax(1e-9f, 6.0f, 1.0f) == 0x20);
}

TEST_CASE("the NVFP4 sweep window is bounded by the positive finite codes and covers all subnormal ones") {
  auto const low = e4m3_scale::sweep(0.0f, 6.0f, 1.0f);
  REQUIRE(low.first == 1);
  REQUIRE(low.last == 15);
  auto const high = e4m3_scale::sweep(448.0f * 6.0f, 6.0f, 1.0f);
  REQUIRE(high.first == 0x7e - 3);
  REQUIRE(high.last == 0x7e);
  auto const middle = e4m3_scale::sweep(6.0f, 6.0f, 1.0f);  // k0 = 0x38
  REQUIRE(middle.first == 0x38 - 3);
  REQUIRE(middle.last == 0x38 + 7);
}

TEST_CASE("an FP8 scale is rounded to bfloat16 first and is never zero") {
  REQUIRE(bf16_scale::from_amax(1.5f, 448.0f, 1.0f) == 0x3b5b);
  REQUIRE(bf16_scale::from_amax(0.0f, 448.0f, 1.0f) == 0x3c00);  // 2^-7
}
