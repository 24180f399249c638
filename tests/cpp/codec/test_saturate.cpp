// What becomes of values that no format stores.
#include <cmath>
#include <limits>
#include <vector>

#include "prismaquant/codec/roundtrip.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace prismaquant;

namespace {
constexpr float infinity = std::numeric_limits<float>::infinity();
}

TEMPLATE_LIST_TEST_CASE("with saturate infinities are the largest finite magnitude, and NaN stays an error", "",
                        format_list) {
  test::random_matrix weights(3, 256, 1);
  auto clipped = weights;
  float const largest = block_amax(weights.view());
  weights.elements[40] = infinity;
  clipped.elements[40] = largest;
  weights.elements[300] = -infinity;
  clipped.elements[300] = -largest;
  REQUIRE(finite_amax(weights.view()) == block_amax(clipped.view()));
  float const global_scale = global_scale_for<sweep_rule, TestType>(finite_amax(weights.view()));
  encode_options const saturate{.importance = {}, .saturate = true};

  REQUIRE_THROWS_AS((encode<TestType, sweep_rule>(weights.view(), global_scale)), numeric_error);
  auto const expected = encode<TestType, sweep_rule>(clipped.view(), global_scale);
  auto const got = encode<TestType, sweep_rule>(weights.view(), global_scale, serial_executor{}, saturate);
  REQUIRE(got.codes() == expected.codes());
  REQUIRE(got.scales() == expected.scales());
  REQUIRE(got.extra() == expected.extra());
  auto const error = encoding_error<TestType, sweep_rule>(weights.view(), global_scale, serial_executor{}, saturate);
  REQUIRE(error.squared_error == squared_error<TestType>(clipped.view(), expected.view()));

  weights.elements[7] = std::numeric_limits<float>::quiet_NaN();
  REQUIRE_THROWS_WITH((encode<TestType>(weights.view(), global_scale, serial_executor{}, saturate)),
                      "weight: 1 NaN and 2 infinite values, the first at row 0, column 7");
}

TEST_CASE("a matrix of infinities alone saturates to zeros") {
  std::vector<float> const weights(32, infinity);
  auto const q = encode<mxfp4>(view(std::span<float const>(weights), 1, 32), 1.0f, serial_executor{},
                               {.importance = {}, .saturate = true});
  std::vector<float> decoded(32, 1.0f);
  decode<mxfp4>(q.view(), view(std::span<float>(decoded), 1, 32));
  REQUIRE(decoded == std::vector<float>(32, 0.0f));
}

TEMPLATE_LIST_TEST_CASE("subnormal blocks decode to something finite, never beyond twice their largest magnitude", "",
                        format_list) {
  std::vector<float> values(256);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = std::ldexp(i % 2 == 0 ? 1.0f : -1.0f, -127 - static_cast<int>(i % 23));
  }
  auto const weights = view(std::span<float const>(values), 1, 256);
  std::vector<float> decoded(256);
  roundtrip<TestType>(weights, view(std::span<float>(decoded), 1, 256));
  for (float const x : decoded) REQUIRE(std::fabs(x) <= 0x1p-126f);
}
