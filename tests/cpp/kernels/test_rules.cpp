// Every format under every scale rule, and what is made of the codes in passing: the kernels against the scalar codec.
#include "kernels/parity.hpp"
#include "prismaquant/codec/roundtrip.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

TEMPLATE_LIST_TEST_CASE("every rule", "", kernel_formats) {
  auto const m = hostile_matrix(5, 1408, 15);
  for_each_named<scale_rule_list>([&]<scale_rule R>(R) {
    if constexpr (R::template applies<TestType> && !std::same_as<R, given_rule>) {
      for (float const g : {1.0f, 100.0f}) require_encode_parity<TestType, R>(m.view(), g);
    }
  });
}

TEMPLATE_LIST_TEST_CASE("every format has kernels for every rule and type", "", kernel_formats) {
  on_every_isa([] {
    if constexpr (!nested_format<TestType>) {
      for_each_named<scale_rule_list>([]<scale_rule R>(R) {
        if constexpr (R::template applies<TestType>) {
          REQUIRE(detail::has_encoder<TestType, R, float>());
          REQUIRE(detail::has_encoder<TestType, R, bfloat16>());
          REQUIRE(detail::has_encoder<TestType, R, float16>());
        }
      });
      REQUIRE(detail::has_decoder<TestType, float>());
      REQUIRE(detail::has_decoder<TestType, bfloat16>());
      REQUIRE(detail::has_decoder<TestType, float16>());
    }
  });
}

TEMPLATE_LIST_TEST_CASE("roundtrip and errors are those of the scalar codec", "", kernel_formats) {
  for (std::size_t const columns : {64u, 384u, 1408u, 4224u}) {
    if (!why_not<TestType>(columns).empty()) continue;
    auto const m = hostile_matrix(130, columns, static_cast<unsigned>(columns));
    auto const run = [&] {
      std::vector<float> out(m.elements.size());
      roundtrip<TestType, sweep_rule>(m.view(), view(std::span<float>(out), 130, columns), 9.0f);
      auto const made = encoding_error<TestType, sweep_rule>(m.view(), 9.0f);
      auto const stored = error_of<TestType>(m.view(), encode<TestType, sweep_rule>(m.view(), 9.0f).view());
      return std::tuple(out, made.squared_error, made.squared_weight, made.max_error, stored.squared_error);
    };
    auto const expected = on_scalar(run);
    on_every_isa([&] {
      auto const found = run();
      REQUIRE(std::memcmp(std::get<0>(found).data(), std::get<0>(expected).data(), m.elements.size() * 4) == 0);
      REQUIRE(std::get<1>(found) == std::get<1>(expected));
      REQUIRE(std::get<2>(found) == std::get<2>(expected));
      REQUIRE(std::get<3>(found) == std::get<3>(expected));
      REQUIRE(std::get<4>(found) == std::get<4>(expected));
    });
  }
}
