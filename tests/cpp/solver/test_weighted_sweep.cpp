// The weighted sweep stops early. Held to trying every positive scale code.
#include <array>
#include <cmath>
#include <limits>
#include <random>

#include "prismaquant/codec/codec.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace prismaquant;

namespace {

template <format F>
struct weighted_block {
  static constexpr std::size_t size = F::block_shape::columns;
  std::array<float, size> values{}, importance{};

  matrix_view<float const> weights() const { return {values.data(), 1, size, size, 1}; }
  matrix_view<float const> h() const { return {importance.data(), 1, size, size, 1}; }
};

template <format F>
void require_exhaustive(weighted_block<F> const& block, float global_scale) {
  double least = std::numeric_limits<double>::infinity();
  unsigned best = 0;
  for (unsigned code = 1; code <= F::scale::max_code; ++code) {
    float const scale = F::scale::decode(static_cast<std::uint8_t>(code), global_scale);
    double const error = rounding_error<F>(block.weights(), block.h(), scale).total;
    if (error < least) {
      least = error;
      best = code;
    }
  }
  unsigned const swept = sweep_rule::choose<F>(block.weights(), block.h(), global_scale);
  if (swept != best) {
    CAPTURE(swept, best, global_scale);
    REQUIRE(swept == best);
  }
}

template <format F>
weighted_block<F> random_block(std::mt19937& generator, int kind) {
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
  weighted_block<F> block;
  for (std::size_t i = 0; i < block.size; ++i) {
    float const x = normal(generator);
    block.values[i] = kind % 3 == 0 ? x * x * x : x;
    float const h = uniform(generator);
    block.importance[i] = kind % 4 == 0   ? 1.0f
                          : kind % 4 == 1 ? h
                          : kind % 4 == 2 ? std::pow(h, 12.0f)
                                          : (h < 0.7f ? 0.0f : h);
  }
  return block;
}

using swept_formats = std::tuple<nvfp4, mxfp4, mxfp6_e2m3, mxfp6_e3m2, mxfp8_e4m3, mxfp8_e5m2, mxint8>;

}  // namespace

TEMPLATE_LIST_TEST_CASE("the weighted sweep equals trying every code on random blocks", "", swept_formats) {
  std::mt19937 generator(11);
  for (int i = 0; i < (TestType::block_shape::columns == 16 ? 20000 : 2000); ++i) {
    auto const block = random_block<TestType>(generator, i);
    if (block_amax(block.h()) == 0.0f) continue;
    require_exhaustive(block, std::ldexp(1.0f, static_cast<int>(generator() % 16u) - 4));
  }
}

TEST_CASE("the weighted sweep equals trying all 126 scales on adversarial blocks") {
  std::mt19937 generator(12);
  // Large values that hardly count beside small ones that do: the best scale is far below amax / 6.
  for (float const spike_importance : {0.0f, 1e-12f, 1e-8f, 1e-6f, 1e-4f, 1e-2f, 1.0f}) {
    for (float const rest : {0.001f, 0.01f, 0.25f, 0.2499f, 0.75f, 1.25f, 1.75f, 2.5f, 3.4999f, 5.0f}) {
      for (int exponent = -12; exponent <= 8; ++exponent) {
        for (std::size_t spikes = 1; spikes < 16; spikes += 3) {
          weighted_block<nvfp4> block;
          for (std::size_t i = 0; i < 16; ++i) {
            block.values[i] = std::ldexp(i < spikes ? 6.0f : rest, exponent);
            block.importance[i] = i < spikes ? spike_importance : 1.0f;
          }
          require_exhaustive(block, 1.0f);
        }
      }
    }
  }
  for (int i = 0; i < 20000; ++i) {  // subnormal scales
    auto block = random_block<nvfp4>(generator, i);
    if (block_amax(block.h()) == 0.0f) continue;
    for (float& x : block.values) x = std::ldexp(x, -10 - static_cast<int>(i % 5));
    require_exhaustive(block, 1.0f);
  }
}

TEMPLATE_LIST_TEST_CASE("equal importance gives an error no larger than the unweighted sweep's", "", swept_formats) {
  std::mt19937 generator(13);
  for (int i = 0; i < 500; ++i) {
    auto block = random_block<TestType>(generator, i);
    auto const unweighted = sweep_rule::choose<TestType>(block.weights(), 1.0f);
    block.importance.fill(1.0f);
    auto const weighted = sweep_rule::choose<TestType>(block.weights(), block.h(), 1.0f);
    auto const error = [&](auto code) {
      return rounding_error<TestType>(block.weights(), TestType::scale::decode(code, 1.0f));
    };
    REQUIRE(error(weighted) <= error(unweighted));
    if constexpr (std::same_as<TestType, nvfp4>) REQUIRE(error(weighted) == error(unweighted));
  }
}

TEST_CASE("a block without importance is swept unweighted") {
  std::mt19937 generator(14);
  auto block = random_block<nvfp4>(generator, 1);
  block.importance.fill(0.0f);
  REQUIRE(sweep_rule::choose<nvfp4>(block.weights(), block.h(), 1.0f) ==
          sweep_rule::choose<nvfp4>(block.weights(), 1.0f));
}

TEST_CASE("importance per column reaches every block of an encoded matrix") {
  test::random_matrix const weights(8, 64, 15);
  std::vector<float> columns(64), full(8 * 64);
  for (std::size_t c = 0; c < 64; ++c) columns[c] = static_cast<float>(c % 7) + 0.01f;
  for (std::size_t i = 0; i < full.size(); ++i) full[i] = columns[i % 64];
  encode_options const per_column{.importance = {columns.data(), 8, 64, 0, 1}};
  encode_options const per_element{.importance = {full.data(), 8, 64, 64, 1}};
  auto const a = encode<nvfp4, sweep_rule>(weights.view(), 9000.0f, serial_executor{}, per_column);
  auto const b = encode<nvfp4, sweep_rule>(weights.view(), 9000.0f, thread_executor(3), per_element);
  REQUIRE(a.codes() == b.codes());
  REQUIRE(a.scales() == b.scales());
  REQUIRE(a.scales() != encode<nvfp4, sweep_rule>(weights.view(), 9000.0f).scales());
  for (std::size_t r = 0; r < 8; ++r) {
    for (std::size_t j = 0; j < 4; ++j) {
      REQUIRE(a.scales()[r * 4 + j] == sweep_rule::choose<nvfp4>(weights.view().part(r, 16 * j, 1, 16),
                                                                 per_element.importance.part(r, 16 * j, 1, 16),
                                                                 9000.0f));
    }
  }
}

TEST_CASE("importance of the wrong shape, negative or not finite is refused") {
  test::random_matrix const weights(2, 32, 16);
  std::vector<float> h(64, 1.0f);
  REQUIRE_THROWS_AS(encode<nvfp4>(weights.view(), 1.0f, serial_executor{}, {.importance = {h.data(), 1, 32, 32, 1}}),
                    shape_error);
  for (float const bad : {-1.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    h[37] = bad;
    REQUIRE_THROWS_AS(encode<nvfp4>(weights.view(), 1.0f, serial_executor{}, {.importance = {h.data(), 2, 32, 32, 1}}),
                      numeric_error);
  }
}
