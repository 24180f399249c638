// More columns than memory holds Grams of.
#include "solver/problems.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

using Catch::Matchers::Contains;

eigen_backend const linalg;
float const one = 1.0f;

// A Gram that would take 10 GB: one number for all of its elements.
matrix_view<float const> vast(std::size_t columns) { return {&one, columns, columns, 0, 0}; }

}  // namespace

TEST_CASE("50,000 columns: solvers that use H refuse before any work and name the memory, data-free ones run") {
  constexpr std::size_t columns = 50'000;
  random_matrix const weights(2, columns, 61);
  solve_context context{.gram = vast(columns), .tokens = 1000};
  context.memory_limit = 8'000'000'000;
  for (std::string_view const preset : {"fast", "best"}) {
    REQUIRE_THROWS_AS(solve<nvfp4>(weights.view(), context, preset, linalg), shape_error);
    REQUIRE_THROWS_WITH(solve<nvfp4>(weights.view(), context, preset, linalg),
                        Contains("weight is 2 x 50000") && Contains("25.0 GB") && Contains("8.0 GB are allowed") &&
                            Contains("scale_sweep") && Contains("memory_limit"));
  }
  for (std::vector<stage> const& stages :
       {std::vector<stage>{gptq{}}, std::vector<stage>{coordinate_descent{}}, std::vector<stage>{rtn{}, two_sided{}}}) {
    REQUIRE_THROWS_AS(solve<nvfp4>(weights.view(), context, std::span<stage const>(stages), linalg), shape_error);
  }
  for (std::string_view const preset : {"rtn", "scale_sweep"}) {  // they have no use for the Gram, not even to report
    auto const result = solve<nvfp4>(weights.view(), context, preset, linalg);
    REQUIRE(result.report.stages.back().after.value() == Approx(result.report.squared_error));
    REQUIRE(result.report.squared_error > 0);
    REQUIRE(result.report.squared_error < 0.02 * 2 * columns * 4e-4);
  }
}

TEST_CASE("without a limit of one's own, nine tenths of the machine's memory are the limit") {
  double const memory = detail::physical_memory();
  if (memory > 1e15) return;  // this machine does not say
  auto const columns =
      static_cast<std::size_t>(std::sqrt(memory / 10.0)) / 16 * 16 + 16;  // H, and U of 1.5 times as many
  random_matrix const weights(1, columns, 62);
  REQUIRE_THROWS_WITH(solve<nvfp4>(weights.view(), {.gram = vast(columns), .tokens = 1000}, "fast", linalg),
                      Contains("would allocate") && Contains("memory_limit"));
  REQUIRE(solve<nvfp4>(weights.view(), {}, "fast", linalg).report.solver == "scale_sweep");
}

TEST_CASE("the limit counts what a chain allocates") {
  problem const p(64, 256, 500, 63);
  auto const needed = [&](std::string_view preset) {
    auto const stages = stages_for<nvfp4>(preset, p.both_sided());
    return detail::peak_memory(64, 256, stages, true);
  };
  for (std::string_view const preset : {"fast", "best"}) {
    auto context = p.both_sided();
    context.memory_limit = static_cast<std::size_t>(needed(preset));
    REQUIRE_NOTHROW(solve<nvfp4>(p.weights.view(), context, preset, linalg));
    context.memory_limit -= 1;
    REQUIRE_THROWS_AS(solve<nvfp4>(p.weights.view(), context, preset, linalg), shape_error);
  }
}
