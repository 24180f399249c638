// What becomes of NaN, infinity, zero blocks and subnormal blocks: for every format, rule, type and instruction set.
#include <cmath>
#include <limits>

#include "kernels/everywhere.hpp"
#include "support/random_matrix.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

constexpr std::size_t rows = 3, columns = 256;
thread_executor const alone(1);

template <class Body>
void by_everything(Body&& body) {
  on_scalar([&] {
    body();
    return 0;
  });
  on_every_isa(body);
}

template <weight_type T>
T special(float value) {
  return round_to<T>(value);
}

template <class T>
matrix_view<T const> matrix(std::vector<T> const& values) {
  return view(std::span<T const>(values), rows, columns);
}

template <format F>
std::vector<float> decoded(quantized_matrix<F> const& q) {
  std::vector<float> values(q.rows() * q.columns());
  decode<F>(q.view(), view(std::span<float>(values), q.rows(), q.columns()), alone);
  return values;
}

// The scale that a block of zeros gets: never zero, so that nothing is divided by it.
template <format F, scale_rule Rule>
float scale_of_zeros() {
  using scale = typename F::scale;
  if constexpr (std::same_as<scale, float32_scale>) return 0x1p-126f;
  if constexpr (std::same_as<scale, bf16_scale>) return 0x1p-7f;
  if constexpr (std::same_as<scale, e4m3_scale>) return std::same_as<Rule, sweep_rule> ? 0x1p-9f : 0.125f;
  return 1.0f;  // E8M0
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("NaN and infinity are errors, and with saturate infinity is the largest finite magnitude", "",
                        format_list) {
  auto const plain = random_matrix(rows, columns, 1).elements;
  for_each_choosing_rule<TestType>([&]<scale_rule Rule>(Rule) {
    for_each_float_type([&]<class T>(T) {
      auto const weights = rounded<T>(plain);
      float const largest = finite_amax(matrix(weights));
      float const g = global_scale_for<Rule, TestType>(largest);
      encode_options const saturate{.importance = {}, .saturate = true};
      auto const with = [&](float value, std::size_t place) {
        auto changed = weights;
        changed[place] = special<T>(value);
        return changed;
      };
      by_everything([&] {
        for (std::size_t const place : {std::size_t{0}, std::size_t{100}, rows * columns - 1}) {
          CAPTURE(TestType::name, Rule::name, place);
          for (float const bad : {std::nanf(""), -std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
            auto const broken = with(bad, place);
            REQUIRE_THROWS_AS((encode<TestType, Rule>(matrix(broken), g, alone)), numeric_error);
            REQUIRE_THROWS_AS((encoding_error<TestType, Rule>(matrix(broken), g, alone)), numeric_error);
            if (bad != bad) {
              REQUIRE_THROWS_AS((encode<TestType, Rule>(matrix(broken), g, alone, saturate)), numeric_error);
              continue;
            }
            auto const clipped = with(bad > 0 ? largest : -largest, place);
            require_equal(bytes_of(encode<TestType, Rule>(matrix(broken), g, alone, saturate)),
                          bytes_of(encode<TestType, Rule>(matrix(clipped), g, alone)), "saturated");
          }
        }
      });
    });
  });
}

TEMPLATE_LIST_TEST_CASE("blocks of zeros decode to zeros under a scale that is not zero", "", format_list) {
  for_each_choosing_rule<TestType>([&]<scale_rule Rule>(Rule) {
    for_each_float_type([&]<class T>(T) {
      for (float const zero : {0.0f, -0.0f}) {
        std::vector<T> const weights(rows * columns, special<T>(zero));
        by_everything([&] {
          CAPTURE(TestType::name, Rule::name, zero);
          auto const q = encode<TestType, Rule>(matrix(weights), 1.0f, alone);
          for (float const x : decoded(q)) REQUIRE(x == 0.0f);
          if constexpr (has_scales<TestType> && !nested_format<TestType>) {
            for (auto const code : q.scales()) {
              REQUIRE(TestType::scale::decode(code, 1.0f) == scale_of_zeros<TestType, Rule>());
            }
          }
        });
      }
    });
  });
}

TEMPLATE_LIST_TEST_CASE("subnormal blocks decode to numbers near them", "", format_list) {
  std::vector<float> values(rows * columns);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = std::ldexp(i % 2 == 0 ? 1.0f : -1.0f, -127 - static_cast<int>(i % 23));
  }
  for_each_choosing_rule<TestType>([&]<scale_rule Rule>(Rule) {
    for_each_float_type([&]<class T>(T) {
      auto const weights = rounded<T>(values);
      by_everything([&] {
        for (float const g : {1.0f, 1e38f}) {
          CAPTURE(TestType::name, Rule::name, g);
          auto const q = encode<TestType, Rule>(matrix(weights), g, alone);
          for (float const x : decoded(q)) REQUIRE(std::fabs(x) <= 0x1p-126f);  // twice the largest
        }
      });
    });
  });
}

TEMPLATE_LIST_TEST_CASE("the largest floats stay finite", "", format_list) {
  constexpr float largest = std::numeric_limits<float>::max();
  for_each_choosing_rule<TestType>([&]<scale_rule Rule>(Rule) {
    std::vector<float> weights(rows * columns, largest);
    for (std::size_t i = 0; i < weights.size(); i += 3) weights[i] = i % 2 == 0 ? -largest : largest / 3;
    by_everything([&] {
      CAPTURE(TestType::name, Rule::name);
      float const g = global_scale_for<Rule, TestType>(largest);
      for (float const x : decoded(encode<TestType, Rule>(matrix(weights), g, alone))) REQUIRE(is_finite(x));
    });
  });
}
