// Every 16-bit input, and float32 inputs from every binade with their ties, through every kernel.
//
// PRISMAQUANT_TEST_FLOATS sets how many float32 are drawn (10^7 by default; "all" goes over all 2^32).
#include <cmath>
#include <cstdlib>
#include <random>

#include "kernels/parity.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

constexpr std::size_t columns = 4096;

// The formats whose elements see an input divided by a scale that does not depend on their neighbours too much: a block
// is `leaders` values that fix its scale, then values under test.
template <weight_type T>
std::vector<T> finite_of(std::vector<T> values) {
  for (auto& v : values) {
    if (!is_finite(float(v))) v = T{};
  }
  return values;
}

std::size_t floats_to_draw() {
  char const* const text = std::getenv("PRISMAQUANT_TEST_FLOATS");
  if (text == nullptr) return 10'000'000;
  return std::string(text) == "all" ? std::size_t{1} << 32 : static_cast<std::size_t>(std::strtoull(text, nullptr, 10));
}

template <format F, weight_type T>
void require_parity(std::vector<T> const& values, float global_scale) {
  require_encode_parity<F, amax_rule>(matrix_view<T const>{values.data(), values.size() / columns, columns, columns, 1},
                                      global_scale);
}

// Row maxima, so that small values are seen under the scale of a larger one: element 0 of every group is `leader`.
template <weight_type T>
void set_leaders(std::vector<T>& values, std::size_t group, T leader) {
  for (std::size_t i = 0; i < values.size(); i += group) values[i] = leader;
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("all 65536 bfloat16 inputs, under their own scales and under given ones", "", kernel_formats) {
  std::vector<bfloat16> values(65536);
  for (unsigned i = 0; i < 65536; ++i) values[i] = {static_cast<std::uint16_t>(i)};
  values = finite_of(values);
  for (float const g : {1.0f, 3.0f, 1e-20f, 1e20f}) require_parity<TestType>(values, g);
  for (float const leader : {6.0f, 448.0f, 0.01f, 1e30f}) {
    auto led = values;
    set_leaders(led, 16, bfloat16::round(leader));
    require_parity<TestType>(led, 1.0f);
  }
}

TEMPLATE_LIST_TEST_CASE("all 65536 float16 inputs, under their own scales and under given ones", "", kernel_formats) {
  std::vector<float16> values(65536);
  for (unsigned i = 0; i < 65536; ++i) values[i] = {static_cast<std::uint16_t>(i)};
  values = finite_of(values);
  for (float const g : {1.0f, 3.0f, 1e-20f, 1e20f}) require_parity<TestType>(values, g);
  for (unsigned const leader : {0x4600u, 0x5f00u, 0x7bffu, 0x0200u}) {  // 6, 448, the largest, a subnormal
    auto led = values;
    set_leaders(led, 16, float16{static_cast<std::uint16_t>(leader)});
    require_parity<TestType>(led, 1.0f);
  }
}

TEMPLATE_LIST_TEST_CASE("float32 inputs: all binades, ties and their neighbours, subnormals", "", kernel_formats) {
  std::size_t const count = floats_to_draw();
  bool const all = count == std::size_t{1} << 32;
  std::size_t const share = std::max<std::size_t>(std::size_t{1} << 20, count / std::tuple_size_v<kernel_formats>);
  std::size_t const batch = std::size_t{1} << 20;
  std::mt19937_64 generator(42);
  for (std::size_t done = 0; done < (all ? count : share); done += batch) {
    std::vector<float> values(batch);
    for (std::size_t i = 0; i < batch; ++i) {
      auto const random = generator();
      auto u = static_cast<std::uint32_t>(random);
      if (all) {
        u = static_cast<std::uint32_t>(done + i);
      } else if ((random >> 32) % 2 != 0) {  // a tie of a short significand, or a last place beside it
        u = ((u & 0xfff80000u) | 0x00040000u << (random >> 40) % 4) + static_cast<std::uint32_t>((random >> 48) % 3) -
            1u;
      }
      values[i] = std::bit_cast<float>(u);
    }
    values = finite_of(values);
    require_parity<TestType>(values, 1.0f);
    if (!all) {  // values within a few binades of a leader: what codes other than the extremes are made of
      for (auto& v : values) {
        int const exponent = static_cast<int>(std::bit_cast<std::uint32_t>(v) >> 23 & 0xffu) - 127;
        v = std::ldexp(v, -exponent - static_cast<int>(generator() % 12u));
      }
      require_parity<TestType>(values, 448.0f);
    }
  }
}

TEMPLATE_LIST_TEST_CASE("every code under every scale decodes alike", "", kernel_formats) {
  using word = typename TestType::layout::word;
  quantized_matrix<TestType> q(256, columns, 3.0f);
  auto const v = q.view();
  for (std::size_t r = 0; r < v.codes.rows; ++r) {
    for (std::size_t c = 0; c < v.codes.columns; ++c) v.codes(r, c) = static_cast<word>(c + r * v.codes.columns);
  }
  for (std::size_t r = 0; r < v.scales.rows; ++r) {
    for (std::size_t c = 0; c < v.scales.columns; ++c) {
      using scale = typename TestType::scale::code_type;
      // Codes of negative numbers and NaN are never written; where both factors are NaN, either may be the result.
      auto const code = static_cast<scale>(sizeof(scale) == 1 ? r : 0x3000u + r * 37u);
      v.scales(r, c) = std::same_as<typename TestType::scale, e4m3_scale> && (code & 0x7f) == 0x7f ? scale{1} : code;
    }
  }
  require_decode_parity<TestType, float>(q.view());
  require_decode_parity<TestType, bfloat16>(q.view());
}
