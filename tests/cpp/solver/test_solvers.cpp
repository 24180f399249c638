#include <vector>

#include "prismaquant/formats/format_list.hpp"
#include "prismaquant/solver/solver_list.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace prismaquant;
using test::random_matrix;

TEMPLATE_LIST_TEST_CASE("every data-free solver reports the error of the bytes it returns, on every format", "",
                        format_list) {
  random_matrix const weights(33, 128, 1);
  for_each_solver([&]<solver S>(S) {
    if constexpr (data_free_solver<S>) {
      auto const result = solve<S, TestType>(weights.view());
      REQUIRE(result.report.solver == S::name);
      REQUIRE(result.report.squared_error == squared_error<TestType>(weights.view(), result.quantized.view()));
    }
  });
}

TEMPLATE_LIST_TEST_CASE("the sweep is never worse than round to nearest under the same global scale", "", format_list) {
  random_matrix const weights(64, 128, 2);
  float const global_scale = shared_global_scale<scale_sweep, TestType>(block_amax(weights.view()));
  double const nearest = solve<rtn, TestType>(weights.view(), {.global_scale = global_scale}).report.squared_error;
  double const swept =
      solve<scale_sweep, TestType>(weights.view(), {.global_scale = global_scale}).report.squared_error;
  REQUIRE(swept <= nearest);
}

TEST_CASE("on normal weights the NVFP4 sweep takes more than a fifth off the squared error") {
  random_matrix const weights(256, 1024, 3);
  double const nearest = solve<rtn, nvfp4>(weights.view()).report.squared_error;
  double const swept = solve<scale_sweep, nvfp4>(weights.view()).report.squared_error;
  REQUIRE(swept < 0.8 * nearest);
}

TEST_CASE("one global scale serves fused siblings, with room for the solver's largest block scale") {
  REQUIRE(shared_global_scale<rtn, nvfp4>(3.0f) == 448.0f * 6.0f / 3.0f);
  REQUIRE(shared_global_scale<scale_sweep, nvfp4>(3.0f) == 256.0f * 6.0f / 3.0f);
  REQUIRE(shared_global_scale<rtn, nvfp4>(0.0f) == 1.0f);
  REQUIRE(shared_global_scale<rtn, nvfp4>(1e-38f) == 1.0f);  // 2688 / 1e-38 overflows
  REQUIRE(shared_global_scale<rtn, mxfp4>(3.0f) == 1.0f);
  random_matrix const small(4, 32, 4, 0.01f);
  auto const alone = solve<rtn, nvfp4>(small.view());
  auto const fused = solve<rtn, nvfp4>(small.view(), {.global_scale = 2.0f});
  REQUIRE(alone.quantized.global_scale() != 2.0f);
  REQUIRE(fused.quantized.global_scale() == 2.0f);
}

TEST_CASE("an unknown solver lists the known ones") {
  REQUIRE_THROWS_WITH(visit_solver("gptq5", [](auto) {}),
                      "unknown solver 'gptq5'; known: rtn, scale_sweep, shift, gptq, coordinate_descent, two_sided");
}
