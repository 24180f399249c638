// The sweep claims that no code outside its window can be better. Held to trying all 126 positive E4M3 codes.
#include <array>
#include <cmath>
#include <limits>
#include <random>

#include "prismaquant/codec/scale_rules.hpp"
#include "prismaquant/formats/mxfp4.hpp"
#include "prismaquant/formats/mxfp8.hpp"
#include "prismaquant/formats/nvfp4.hpp"
#include "support/catch.hpp"

using namespace prismaquant;

namespace {

template <format F>
using values = std::array<float, F::block_shape::columns>;

template <format F>
matrix_view<float const> block_of(values<F> const& v) {
  return {v.data(), 1, v.size(), static_cast<std::ptrdiff_t>(v.size()), 1};
}

// The best of all codes first..last, the smallest on ties.
template <format F>
unsigned best_of_all(values<F> const& v, float global_scale, unsigned first, unsigned last) {
  double least = std::numeric_limits<double>::infinity();
  unsigned best = first;
  for (unsigned code = first; code <= last; ++code) {
    float const scale = F::scale::decode(static_cast<std::uint8_t>(code), global_scale);
    double const error = rounding_error<F>(block_of<F>(v), scale);
    if (error < least) {
      least = error;
      best = code;
    }
  }
  return best;
}

void require_exhaustive(values<nvfp4> const& v, float global_scale) {
  unsigned const swept = sweep_rule::choose<nvfp4>(block_of<nvfp4>(v), global_scale);
  unsigned const best = best_of_all<nvfp4>(v, global_scale, 1, 126);
  if (swept != best) {
    // Codes may differ only between scales of the very same error (all elements exact, or all rounded to zero).
    double const swept_error =
        rounding_error<nvfp4>(block_of<nvfp4>(v), nvfp4::scale::decode(static_cast<std::uint8_t>(swept), global_scale));
    double const best_error =
        rounding_error<nvfp4>(block_of<nvfp4>(v), nvfp4::scale::decode(static_cast<std::uint8_t>(best), global_scale));
    CAPTURE(swept, best, global_scale);
    REQUIRE(swept_error == best_error);
  }
}

}  // namespace

TEST_CASE("the NVFP4 sweep equals trying all 126 scales on random blocks") {
  std::mt19937 generator(7);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  for (int i = 0; i < 20000; ++i) {
    values<nvfp4> v;
    bool const heavy = i % 3 == 0;
    for (auto& x : v)
      x = heavy ? std::pow(normal(generator), 3.0f) : i % 3 == 1 ? normal(generator) : uniform(generator);
    require_exhaustive(v, std::ldexp(1.0f, static_cast<int>(generator() % 12u) - 2));
  }
}

TEST_CASE("the NVFP4 sweep equals trying all 126 scales where scales are subnormal") {
  std::mt19937 generator(8);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  for (int i = 0; i < 20000; ++i) {
    values<nvfp4> v;
    // amax / 6 between a quarter of the smallest scale and a few steps above the last subnormal one
    float const amax = 6.0f * std::ldexp(1.0f + uniform(generator) / 2, -11 + static_cast<int>(generator() % 6u));
    for (auto& x : v) x = amax * uniform(generator);
    v[static_cast<std::size_t>(i % 16)] = i % 2 == 0 ? amax : -amax;
    require_exhaustive(v, 1.0f);
  }
}

TEST_CASE("the NVFP4 sweep equals trying all 126 scales on adversarial blocks") {
  for (int spike = 1; spike <= 16; ++spike) {  // some large values, the rest at a rounding boundary of the next binade
    for (float const rest : {0.25f, 0.2499f, 0.75f, 1.25f, 1.75f, 2.5f, 3.4999f, 5.0f, 0.0f}) {
      for (int exponent = -12; exponent <= 8; ++exponent) {
        values<nvfp4> v;
        for (int i = 0; i < 16; ++i) v[static_cast<std::size_t>(i)] = std::ldexp(i < spike ? 6.0f : rest, exponent);
        require_exhaustive(v, 1.0f);
      }
    }
  }
}

TEST_CASE("ties go to the smallest code") {
  values<nvfp4> v{};
  v[0] = 3.0f;  // exact under scales 0.5, 0.75, 1, 1.5, ...; the window reaches down to code(0.5) - 3
  unsigned const code = sweep_rule::choose<nvfp4>(block_of<nvfp4>(v), 1.0f);
  REQUIRE(rounding_error<nvfp4>(block_of<nvfp4>(v), e4m3::decode(static_cast<std::uint8_t>(code))) == 0.0);
  REQUIRE(code == best_of_all<nvfp4>(v, 1.0f, 1, 126));
}

TEMPLATE_TEST_CASE("two exponents are enough for E8M0 in all but rare blocks, and never worse than the amax rule", "",
                   mxfp4, mxfp8_e4m3) {
  std::mt19937 generator(9);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  for (int i = 0; i < 5000; ++i) {
    values<TestType> v;
    for (auto& x : v) x = normal(generator);
    auto const block = block_of<TestType>(v);
    auto const error_of = [&](unsigned code) {
      return rounding_error<TestType>(block, TestType::scale::decode(static_cast<std::uint8_t>(code), 1.0f));
    };
    unsigned const swept = sweep_rule::choose<TestType>(block, 1.0f);
    REQUIRE(error_of(swept) <= error_of(amax_rule::choose<TestType>(block, 1.0f)));
    REQUIRE(error_of(swept) <= error_of(swept + 1));
  }
}
