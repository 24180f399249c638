// Encoding is held to exact rational rounding: every value and every midpoint of these formats is a float64, so the
// reference compares exactly and shares no bit trick with the code.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "prismaquant/core/float_types.hpp"
#include "prismaquant/formats/minifloat.hpp"
#include "support/catch.hpp"

using namespace prismaquant;

namespace {

template <class Element>
class exact_rounding {
 public:
  exact_rounding() {
    for (unsigned code = 0; code <= Element::max_code; ++code) {
      values_.push_back(double{Element::decode(static_cast<typename Element::code_type>(code))});
    }
  }

  unsigned operator()(float input) const {
    unsigned const sign = std::signbit(input) ? Element::sign_mask : 0u;
    double const magnitude = std::fabs(double{input});
    auto const above =
        static_cast<std::size_t>(std::upper_bound(values_.begin(), values_.end(), magnitude) - values_.begin());
    if (above == values_.size()) return sign | static_cast<unsigned>(above - 1);  // saturates, infinity included
    double const middle = (values_[above - 1] + values_[above]) / 2;
    bool const up = magnitude > middle || (magnitude == middle && above % 2 == 0);
    return sign | static_cast<unsigned>(up ? above : above - 1);
  }

  std::vector<double> const& values() const { return values_; }

 private:
  std::vector<double> values_;
};

template <class Element>
void require_exact(exact_rounding<Element> const& reference, float input) {
  unsigned const expected = reference(input);
  unsigned const got = Element::encode(input);
  if (got != expected) {
    CAPTURE(input, std::bit_cast<std::uint32_t>(input), got, expected);
    REQUIRE(got == expected);
  }
}

}  // namespace

TEMPLATE_TEST_CASE("every finite code round-trips and values rise with the code", "", e2m1, e2m3, e3m2, e4m3, e5m2,
                   fp16_element, bf16_element) {
  for (unsigned code = 0; code <= TestType::max_code; ++code) {
    auto const positive = static_cast<typename TestType::code_type>(code);
    auto const negative = static_cast<typename TestType::code_type>(code | TestType::sign_mask);
    REQUIRE(TestType::encode(TestType::decode(positive)) == positive);
    REQUIRE(TestType::encode(TestType::decode(negative)) == negative);
    REQUIRE(TestType::decode(negative) == -TestType::decode(positive));
    if (code != 0)
      REQUIRE(TestType::decode(positive) > TestType::decode(static_cast<typename TestType::code_type>(code - 1)));
  }
}

TEMPLATE_TEST_CASE("encode is exact on every bfloat16 input", "", e2m1, e2m3, e3m2, e4m3, e5m2, fp16_element,
                   bf16_element) {
  exact_rounding<TestType> const reference;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    float const input = std::bit_cast<float>(bits << 16);
    if (!std::isnan(input)) require_exact(reference, input);
  }
}

TEMPLATE_TEST_CASE("encode is exact on every float16 input", "", e2m1, e2m3, e3m2, e4m3, e5m2, fp16_element,
                   bf16_element) {
  exact_rounding<TestType> const reference;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    float const input = float16{static_cast<std::uint16_t>(bits)};
    if (!std::isnan(input)) require_exact(reference, input);
  }
}

TEMPLATE_TEST_CASE("encode is exact at every midpoint and one ulp to either side", "", e2m1, e2m3, e3m2, e4m3, e5m2,
                   fp16_element, bf16_element) {
  exact_rounding<TestType> const reference;
  auto const& values = reference.values();
  for (std::size_t i = 0; i + 1 < values.size(); ++i) {
    auto const middle = static_cast<float>((values[i] + values[i + 1]) / 2);
    for (float const input : {std::nextafter(middle, 0.0f), middle, std::nextafter(middle, HUGE_VALF)}) {
      require_exact(reference, input);
      require_exact(reference, -input);
    }
  }
}

TEMPLATE_TEST_CASE("encode is exact on ten million random float32", "", e2m1, e2m3, e3m2, e4m3, e5m2, fp16_element,
                   bf16_element) {
  exact_rounding<TestType> const reference;
  std::mt19937 generator(20261121);
  std::uniform_real_distribution<float> in_range(-1.25f * std::min(TestType::max_value, 1e30f),
                                                 1.25f * std::min(TestType::max_value, 1e30f));
  auto const any_float = [&] {  // all binades, subnormals and infinities
    float value;
    do value = std::bit_cast<float>(static_cast<std::uint32_t>(generator()));
    while (std::isnan(value));
    return value;
  };
  // Around the format's own range, where the rounding decisions are; bfloat16's range is that of float32.
  constexpr bool narrow = TestType::max_value < 1e30f;
  for (int i = 0; i < 5'000'000; ++i) {
    require_exact(reference, any_float());
    float const scaled = std::ldexp(in_range(generator), -static_cast<int>(generator() % 24u));
    require_exact(reference, narrow ? scaled : any_float());
  }
}

TEMPLATE_TEST_CASE("infinities saturate", "", e2m1, e2m3, e3m2, e4m3, e5m2, fp16_element, bf16_element) {
  float const infinity = std::numeric_limits<float>::infinity();
  REQUIRE(TestType::encode(infinity) == TestType::max_code);
  REQUIRE(TestType::encode(-infinity) == (TestType::max_code | TestType::sign_mask));
}

TEST_CASE("NaN becomes the format's NaN, or zero where it has none") {
  float const nan = std::numeric_limits<float>::quiet_NaN();
  REQUIRE(std::isnan(e4m3::decode(e4m3::encode(nan))));
  REQUIRE(std::isnan(e5m2::decode(e5m2::encode(nan))));
  REQUIRE(std::isnan(bf16_element::decode(bf16_element::encode(nan))));
  REQUIRE(e2m1::encode(nan) == 0);
  REQUIRE(std::isnan(fp16_element::decode(fp16_element::encode(nan))));
  REQUIRE(e2m3::encode(nan) == 0);
  REQUIRE(e3m2::encode(nan) == 0);
}

TEST_CASE("special codes decode as the specifications say") {
  REQUIRE(std::isnan(e4m3::decode(0x7f)));
  REQUIRE(std::isnan(e4m3::decode(0xff)));
  REQUIRE(e5m2::decode(0x7c) == std::numeric_limits<float>::infinity());
  REQUIRE(std::isnan(e5m2::decode(0x7d)));
  REQUIRE(e4m3::max_exponent == 8);
  REQUIRE(e2m1::max_exponent == 2);
}
