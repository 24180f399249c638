#include <cmath>
#include <limits>
#include <vector>

#include "prismaquant/codec/roundtrip.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace prismaquant;
using test::random_matrix;

namespace {

// Runs the ranges in another order and size than a serial executor.
struct backwards {
  void for_ranges(std::size_t count, auto&& body) const {
    for (std::size_t end = count; end != 0; end -= std::min<std::size_t>(end, 3)) {
      body(end - std::min<std::size_t>(end, 3), end);
    }
  }
};

template <class T>
std::vector<T> rounded(random_matrix const& m) {
  std::vector<T> elements;
  for (float const x : m.elements) elements.push_back(round_to<T>(x));
  return elements;
}

template <class T>
bool same(std::vector<T> const& a, std::vector<T> const& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (float(a[i]) != float(b[i])) return false;
  }
  return a.size() == b.size();
}

template <format F, scale_rule Rule, class T>
void require_roundtrip(random_matrix const& random) {
  auto const elements = rounded<T>(random);
  auto const weights = view(std::span<T const>(elements), random.rows, random.columns);
  float const global_scale = global_scale_for<Rule, F>(block_amax(weights));
  backwards const threads;
  auto const q = encode<F, Rule>(weights, global_scale);
  std::vector<T> expected(elements.size()), got(elements.size());
  decode<F>(q.view(), view(std::span<T>(expected), random.rows, random.columns));
  roundtrip<F, Rule>(weights, view(std::span<T>(got), random.rows, random.columns), global_scale, threads);
  REQUIRE(same(got, expected));

  auto in_place = elements;
  auto const target = view(std::span<T>(in_place), random.rows, random.columns);
  roundtrip<F, Rule>(matrix_view<T const>(target), target, global_scale);
  REQUIRE(same(in_place, expected));

  auto const stored = error_of<F>(weights, q.view());
  auto const fused = encoding_error<F, Rule>(weights, global_scale, threads);
  REQUIRE(stored.squared_error == squared_error<F>(weights, q.view()));
  REQUIRE(fused.squared_error == stored.squared_error);
  REQUIRE(fused.squared_weight == stored.squared_weight);
  REQUIRE(fused.max_error == stored.max_error);
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("roundtrip and its error are those of encode and decode", "", format_list) {
  random_matrix const weights(131, 256, 1);
  require_roundtrip<TestType, amax_rule, float>(weights);
}

TEMPLATE_TEST_CASE("roundtrip of 16-bit weights and under a sweep", "", nvfp4, mxint8, fp8_e4m3_block, int4_g32_asym,
                   nf4_double, fp16) {
  random_matrix const weights(131, 256, 2);
  require_roundtrip<TestType, amax_rule, bfloat16>(weights);
  require_roundtrip<TestType, amax_rule, float16>(weights);
  require_roundtrip<TestType, sweep_rule, float>(weights);
}

TEST_CASE("error, signal to noise ratio and largest error have their definitions") {
  std::vector<float> const weights{3.0f, 4.0f};
  auto const matrix = view(std::span<float const>(weights), 1, 2);
  auto q = encode<fp8_e4m3_tensor>(matrix);
  std::vector<float> decoded(2);
  decode<fp8_e4m3_tensor>(q.view(), view(std::span<float>(decoded), 1, 2));
  double const a = double{decoded[0]} - 3, b = double{decoded[1]} - 4;
  auto const error = error_of<fp8_e4m3_tensor>(matrix, q.view());
  REQUIRE(error.squared_error == a * a + b * b);
  REQUIRE(error.squared_weight == 25.0);
  REQUIRE(error.max_error == std::max(std::fabs(a), std::fabs(b)));
  REQUIRE(error.snr_db() == 10 * std::log10(25.0 / error.squared_error));
  REQUIRE(encoding_error<bf16>(matrix).snr_db() == std::numeric_limits<double>::infinity());
}

TEST_CASE("an output of another shape or a bad global scale is refused before anything is written") {
  random_matrix const weights(2, 32, 2);
  std::vector<float> out(32, 7.0f);
  REQUIRE_THROWS_AS(roundtrip<mxfp4>(weights.view(), view(std::span<float>(out), 1, 32)), shape_error);
  std::vector<float> right(64, 7.0f);
  REQUIRE_THROWS_AS(roundtrip<nvfp4>(weights.view(), view(std::span<float>(right), 2, 32), -1.0f), numeric_error);
  for (float const x : right) REQUIRE(x == 7.0f);
}

TEMPLATE_LIST_TEST_CASE("scales that the caller gives are used as they are", "", format_list) {
  if constexpr (given_rule::applies<TestType>) {
    random_matrix const weights(9, 256, 3), other(9, 256, 4, 0.03f);
    auto const expected = encode<TestType>(weights.view(), 500.0f);
    auto given = encode<TestType>(other.view(), 500.0f);
    auto again = expected;  // the scales of `weights` give its codes back, those of `other` stay as they are
    encode_into<TestType, given_rule>(weights.view(), again.view(), serial_executor{});
    REQUIRE(again.codes() == expected.codes());
    auto const scales = given.scales();
    auto const extra = given.extra();
    encode_into<TestType, given_rule>(weights.view(), given.view(), serial_executor{});
    REQUIRE(given.scales() == scales);
    REQUIRE(given.extra() == extra);
  }
}

TEST_CASE("a given scale that is not positive and finite is refused") {
  random_matrix const weights(1, 32, 5);
  quantized_matrix<nvfp4> zeroed(1, 32);
  REQUIRE_THROWS_AS((encode_into<nvfp4, given_rule>(weights.view(), zeroed.view(), serial_executor{})), numeric_error);
  quantized_matrix<fp8_e4m3_token> token(1, 32);
  token.view().scales(0, 0) = -1.0f;
  REQUIRE_THROWS_AS((encode_into<fp8_e4m3_token, given_rule>(weights.view(), token.view(), serial_executor{})),
                    numeric_error);
}
