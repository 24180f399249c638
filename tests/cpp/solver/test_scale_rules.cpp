#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "prismaquant/codec/codec.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace prismaquant;

namespace {
using mx_formats = std::tuple<mxfp4, mxfp6_e2m3, mxfp6_e3m2, mxfp8_e4m3, mxfp8_e5m2, mxint8>;

matrix_view<float const> one(float const& value) { return {&value, 1, 1, 1, 1}; }
}  // namespace

TEMPLATE_LIST_TEST_CASE("floor is the OCP exponent, ceil the first without saturation, amax one of the two", "",
                        mx_formats) {
  using scale = typename TestType::scale;
  double const largest = double{TestType::element::max_value};
  std::mt19937 generator(1);
  std::uniform_real_distribution<float> uniform(1.0f, 2.0f);
  for (int i = 0; i < 20000; ++i) {
    float amax = std::ldexp(uniform(generator), static_cast<int>(generator() % 200u) - 100);
    if (i % 4 == 0) amax = std::ldexp(TestType::element::max_value, static_cast<int>(generator() % 100u) - 50);
    if (i % 4 == 1)
      amax = std::nextafter(std::ldexp(TestType::element::max_value, static_cast<int>(generator() % 100u) - 50),
                            HUGE_VALF);
    int const expected = static_cast<int>(std::floor(std::log2(double{amax}))) - TestType::element::max_exponent + 127;
    unsigned const low = floor_rule::choose<TestType>(one(amax), 1.0f);
    unsigned const high = ceil_rule::choose<TestType>(one(amax), 1.0f);
    unsigned const rounded = amax_rule::choose<TestType>(one(amax), 1.0f);
    REQUIRE(static_cast<int>(low) == std::max(expected, 1));
    REQUIRE(double{amax} <= largest * double{scale::decode(static_cast<std::uint8_t>(high), 1.0f)});
    if (high > 1) REQUIRE(double{amax} > largest * double{scale::decode(static_cast<std::uint8_t>(high - 1), 1.0f)});
    REQUIRE((rounded == low || rounded == low + 1));
  }
  float const zero = 0.0f;
  REQUIRE(floor_rule::choose<TestType>(one(zero), 1.0f) == 127);
  REQUIRE(ceil_rule::choose<TestType>(one(zero), 1.0f) == 127);
}

TEST_CASE("the amax rule raises the exponent where compressed-tensors does") {
  REQUIRE(mxfp6_e2m3::scale::from_amax(7.75f, 7.5f, 1.0f) == 128);  // 1.9375 * 4
  REQUIRE(mxfp6_e2m3::scale::from_amax(7.7499995f, 7.5f, 1.0f) == 127);
  REQUIRE(mxfp6_e3m2::scale::from_amax(30.0f, 28.0f, 1.0f) == 128);  // 1.875 * 16: half a step beyond the largest
  REQUIRE(mxfp6_e3m2::scale::from_amax(29.9f, 28.0f, 1.0f) == 127);
  REQUIRE(mxfp8_e5m2::scale::from_amax(61440.0f, 57344.0f, 1.0f) == 128);
  REQUIRE(mxint8::scale::from_amax(1.9921875f, 1.984375f, 1.0f) == 128);
  REQUIRE(mxint8::scale::from_amax(1.992f, 1.984375f, 1.0f) == 127);
}

TEST_CASE("four over six takes the better of two scales, and never errs more than amax over six") {
  test::random_matrix const weights(64, 64, 2);
  float const global_scale = global_scale_for<four_over_six_rule, nvfp4>(block_amax(weights.view()));
  REQUIRE(global_scale == 1536.0f / block_amax(weights.view()));
  auto const q = encode<nvfp4, four_over_six_rule>(weights.view(), global_scale);
  int fours = 0;
  for (std::size_t r = 0; r < 64; ++r) {
    for (std::size_t j = 0; j < 4; ++j) {
      auto const block = weights.view().part(r, 16 * j, 1, 16);
      auto const six = e4m3_scale::from_amax(block_amax(block), 6.0f, global_scale);
      auto const four = e4m3_scale::from_amax(block_amax(block), 4.0f, global_scale);
      auto const error = [&](auto code) {
        return rounding_error<nvfp4>(block, e4m3_scale::decode(code, global_scale));
      };
      auto const expected = error(four) < error(six) ? four : six;
      REQUIRE(q.scales()[r * 4 + j] == expected);
      fours += expected == four;
    }
  }
  REQUIRE(fours > 20);
  REQUIRE(fours < 236);
  REQUIRE(squared_error<nvfp4>(weights.view(), q.view()) <=
          squared_error<nvfp4>(weights.view(), encode<nvfp4>(weights.view(), global_scale).view()));
  REQUIRE(squared_error<nvfp4>(weights.view(), encode<nvfp4, sweep_rule>(weights.view(), global_scale).view()) <=
          squared_error<nvfp4>(weights.view(), q.view()));
}

TEST_CASE("four over six follows the importance") {
  std::vector<float> values(16, 0.0f), h(16, 1.0f);
  values[0] = 6.0f;  // exact under 6
  values[1] = 4.5f;  // exact under 4
  h[0] = 0.0f;
  auto const block = view(std::span<float const>(values), 1, 16);
  auto const importance = view(std::span<float const>(h), 1, 16);
  REQUIRE(four_over_six_rule::choose<nvfp4>(block, importance, 1.0f) == e4m3_scale::from_amax(6.0f, 4.0f, 1.0f));
  h[0] = 1.0f;
  h[1] = 0.0f;
  REQUIRE(four_over_six_rule::choose<nvfp4>(block, importance, 1.0f) == e4m3_scale::from_amax(6.0f, 6.0f, 1.0f));
}

TEST_CASE("rules are found by name, for the formats they apply to") {
  std::string found;
  visit_scale_rule<mxfp4>("ceil", [&]<scale_rule R>(R) { found = R::name; });
  REQUIRE(found == "ceil");
  REQUIRE_THROWS_WITH(visit_scale_rule<nvfp4>("ceil", [](auto) {}),
                      "scale rule 'ceil' is not for nvfp4; it takes amax, sweep, four_over_six, given");
  REQUIRE_THROWS_WITH(visit_scale_rule<nvfp4>("best", [](auto) {}),
                      "unknown scale rule 'best'; known: amax, sweep, four_over_six, floor, ceil, given");
}
