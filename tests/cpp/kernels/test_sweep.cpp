// Scale rules that compare errors choose the codes of the scalar codec on every instruction set: ties, zeros,
// subnormals, scales at the ends of their range, importance of any size.
#include <bit>
#include <cmath>

#include "kernels/parity.hpp"
#include "support/random_matrix.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

constexpr std::size_t rows = 16, columns = 544;  // 34 groups of 16, 17 of 32: never a multiple of 16 groups

// A finite float of any bits.
float any_finite(std::mt19937& generator) {
  auto const u = static_cast<std::uint32_t>(generator());
  return std::bit_cast<float>((u & 0x7f800000u) == 0x7f800000u ? u & 0xbfffffffu : u);
}

struct kind {
  char const* name;
  float (*weight)(std::mt19937&, std::size_t i, float x, float of_group);  // x: normal; of_group: the same for 32
};

kind const kinds[] = {
    {"normal", [](std::mt19937&, std::size_t, float x, float) { return 0.02f * x; }},
    {"heavy tails", [](std::mt19937&, std::size_t, float x, float) { return x * x * x * x * x; }},
    {"bfloat16", [](std::mt19937&, std::size_t, float x, float) { return float(bfloat16::round(x)); }},
    {"quarters",
     [](std::mt19937& generator, std::size_t i, float, float) {
       return std::ldexp(static_cast<float>(generator() % 49u) - 24.0f, static_cast<int>(i / 32 % 20) - 12);
     }},
    {"one magnitude", [](std::mt19937& generator, std::size_t, float, float c) { return generator() % 2u ? c : -c; }},
    {"three values",
     [](std::mt19937& g, std::size_t, float, float c) { return c * (static_cast<float>(g() % 3u) - 1); }},
    {"zeros",
     [](std::mt19937& generator, std::size_t i, float x, float) { return i / 32 % 3 || generator() % 4u ? 0.0f : x; }},
    {"zeros of both signs", [](std::mt19937& g, std::size_t, float, float) { return g() % 2u ? 0.0f : -0.0f; }},
    {"subnormal",
     [](std::mt19937&, std::size_t i, float x, float) { return std::ldexp(x, -130 - static_cast<int>(i / 32 % 20)); }},
    {"one large", [](std::mt19937& generator, std::size_t i, float x,
                     float) { return i % 16 == 5 ? std::ldexp(x, static_cast<int>(generator() % 20u)) : x; }},
    {"wide",
     [](std::mt19937& g, std::size_t, float x, float) { return std::ldexp(x, static_cast<int>(g() % 24u) - 16); }},
    {"groups of all sizes",
     [](std::mt19937&, std::size_t i, float x, float) { return std::ldexp(x, static_cast<int>(i / 32 % 200) - 100); }},
    {"subnormal scales",
     [](std::mt19937&, std::size_t i, float x, float) { return x * 0x1p-8f * static_cast<float>(i / 32 % 20); }},
    {"any bits", [](std::mt19937& generator, std::size_t, float, float) { return any_finite(generator); }},
};

// Importance of one group of 32 in nine ways; equal for all, none, none of some, over all binades.
float importance_of(std::mt19937& generator, std::size_t i, float x) {
  float const u = static_cast<float>(generator() % 65536u) / 65536.0f;
  switch (i / 32 % 9) {
    case 0:
      return 1.0f;
    case 1:
      return u;
    case 2:
      return std::pow(u, 12.0f);
    case 3:
      return u < 0.7f ? -0.0f : u;
    case 4:
      return 0.0f;
    case 5:
      return std::exp(2.0f * x);
    case 6:
      return std::fabs(any_finite(generator));
    case 7:
      return i % 16 == 5 ? 1e-9f * u : u;
    default:
      return u * 3e38f;
  }
}

template <format F, scale_rule Rule>
void require_parity(std::vector<float> const& weights, std::vector<float> const& importance, float global_scale) {
  matrix_view<float const> const w{weights.data(), rows, columns, columns, 1};
  encode_options weighted;
  weighted.importance = {importance.data(), rows, columns, columns, 1};
  for (encode_options const& options : {encode_options{}, weighted}) {
    auto const run = [&] { return encode<F, Rule>(w, global_scale, serial_executor{}, options); };
    auto const expected = on_scalar(run);
    on_every_isa([&] {
      auto const found = run();
      for (std::size_t i = 0; i < expected.scales().size(); ++i) {
        if (found.scales()[i] == expected.scales()[i]) continue;
        CAPTURE(F::name, Rule::name, global_scale, i, options.importance.data != nullptr);
        REQUIRE(static_cast<unsigned>(found.scales()[i]) == static_cast<unsigned>(expected.scales()[i]));
      }
      REQUIRE(same(found, expected));
    });
  }
}

template <class Body>
void for_every_kind(unsigned seed, Body&& body) {
  for (auto const& k : kinds) {
    CAPTURE(k.name);
    random_matrix const normal(rows, columns, seed, 1.0f);
    std::mt19937 generator(seed);
    std::vector<float> weights(rows * columns), importance(rows * columns);
    for (std::size_t i = 0; i < weights.size(); ++i) {
      float const x = normal.elements[i];
      weights[i] = k.weight(generator, i, x, normal.elements[i / 32 * 32]);
      importance[i] = importance_of(generator, i, normal.elements[weights.size() - 1 - i]);
    }
    body(weights, importance);
  }
}

}  // namespace

TEST_CASE("NVFP4 scales by error, under global scales of all sizes") {
  for_every_kind(21, [](auto const& weights, auto const& importance) {
    for (float const g : {0x1p-149f, 0x1p-126f, 0x1p-101f, 1e-20f, 0.37f, 1.0f, 117.3f, 2688.0f, 76800.0f, 1e9f,
                          0x1p99f, 0x1p101f, 0x1.fffffep127f}) {
      require_parity<nvfp4, sweep_rule>(weights, importance, g);
      require_parity<nvfp4, four_over_six_rule>(weights, importance, g);
    }
  });
}

TEST_CASE("NVFP4 scales by error, many groups of the usual sizes") {
  for (unsigned seed = 100; seed < 140; ++seed) {
    random_matrix const w(rows, columns, seed);
    random_matrix h(rows, columns, seed + 1000, 1.0f);
    for (float& x : h.elements) x = std::exp(x);
    for (float const g : {1000.0f, 31000.0f}) {
      require_parity<nvfp4, sweep_rule>(w.elements, h.elements, g);
      require_parity<nvfp4, four_over_six_rule>(w.elements, h.elements, g);
    }
  }
}

using mx_formats = std::tuple<mxfp4, mxfp6_e2m3, mxfp6_e3m2, mxfp8_e4m3, mxfp8_e5m2, mxint8>;

TEMPLATE_LIST_TEST_CASE("powers of two by error", "", mx_formats) {
  for (unsigned seed = 30; seed < 34; ++seed) {
    for_every_kind(seed, [](auto const& weights, auto const& importance) {
      require_parity<TestType, sweep_rule>(weights, importance, 1.0f);
    });
  }
}
