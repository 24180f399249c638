// Integers and code books, held to the nearest of all their values by exact comparison in float64.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "prismaquant/formats/int8.hpp"
#include "prismaquant/formats/nf4.hpp"
#include "support/catch.hpp"

using namespace prismaquant;

namespace {

// Codes that an encoder may write, with their values.
template <class Element>
std::vector<std::pair<double, unsigned>> written() {
  std::vector<std::pair<double, unsigned>> found;
  for (unsigned code = 0; code < 1u << Element::bits; ++code) {
    double const value = double{Element::decode(static_cast<std::uint8_t>(code))};
    if constexpr (requires { Element::min_value; }) {
      if (value < double{Element::min_value}) continue;
    }
    found.emplace_back(value, code);
  }
  return found;
}

// Of two values at the same distance, whether the first wins: the even integer, or the lower entry of a code book.
template <class Element>
bool wins_tie(double value, double other) {
  if constexpr (requires { Element::step; }) {
    return std::fmod(value / double{Element::step}, 2.0) == 0.0;
  } else {
    return value < other;
  }
}

template <class Element>
void require_nearest(std::vector<std::pair<double, unsigned>> const& all, float input) {
  double const x = std::clamp(double{input}, -1e6, 1e6);  // beyond, distances would be rounded
  auto best = all.front();
  for (auto const& candidate : all) {
    double const gain = std::fabs(x - best.first) - std::fabs(x - candidate.first);
    if (gain > 0 || (gain == 0 && candidate.first != best.first && wins_tie<Element>(candidate.first, best.first))) {
      best = candidate;
    }
  }
  unsigned const got = Element::encode(input);
  if (got != best.second && Element::decode(static_cast<std::uint8_t>(got)) != best.first) {
    CAPTURE(input, got, best.second);
    REQUIRE(got == best.second);
  }
}

template <class Element>
std::vector<std::pair<double, unsigned>> rising() {
  auto all = written<Element>();
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace

TEMPLATE_TEST_CASE("every code that is written round-trips", "", int4_element, int8_element, symmetric_int8_element,
                   mxint8_element, nf4_element, dynamic_element) {
  for (auto const& [value, code] : written<TestType>()) REQUIRE(TestType::encode(static_cast<float>(value)) == code);
}

TEMPLATE_TEST_CASE("encode is the nearest value on all bfloat16 and float16 inputs", "", int4_element, int8_element,
                   symmetric_int8_element, mxint8_element, nf4_element) {
  auto const all = rising<TestType>();
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    for (float const input :
         {float(bfloat16{static_cast<std::uint16_t>(bits)}), float(float16{static_cast<std::uint16_t>(bits)})}) {
      if (!std::isnan(input)) require_nearest<TestType>(all, input);
    }
  }
}

TEMPLATE_TEST_CASE("encode is the nearest value at every midpoint, one ulp to either side, and at random", "",
                   int4_element, int8_element, symmetric_int8_element, mxint8_element, nf4_element, dynamic_element) {
  auto const all = rising<TestType>();
  for (std::size_t i = 0; i + 1 < all.size(); ++i) {
    auto const middle = static_cast<float>((all[i].first + all[i + 1].first) / 2);
    for (float const input : {std::nextafter(middle, -HUGE_VALF), middle, std::nextafter(middle, HUGE_VALF)}) {
      require_nearest<TestType>(all, input);
    }
  }
  std::mt19937 generator(20261121);
  std::uniform_real_distribution<float> in_range(-1.25f * TestType::max_value, 1.25f * TestType::max_value);
  for (int i = 0; i < 100000; ++i) require_nearest<TestType>(all, in_range(generator));
}

TEST_CASE("NaN becomes zero, or the lowest entry of a code book") {
  float const nan = std::numeric_limits<float>::quiet_NaN();
  REQUIRE(int4_element::decode(int4_element::encode(nan)) == 0.0f);
  REQUIRE(int8_element::decode(int8_element::encode(nan)) == 0.0f);
  REQUIRE(nf4_element::encode(nan) == 0);
}

TEST_CASE("the dynamic map of bitsandbytes: 256 rising values with zero and one") {
  auto const& values = dynamic_table::values;
  for (std::size_t i = 1; i < values.size(); ++i) REQUIRE(values[i - 1] < values[i]);
  REQUIRE(values.front() == -0.99296874f);
  REQUIRE(values[127] == 0.0f);
  REQUIRE(values[255] == 1.0f);
  REQUIRE(values[254] == 0.99296874f);
}
