// Chains of solvers as a whole.
#include "prismaquant/formats/format_list.hpp"
#include "solver/problems.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {
eigen_backend const linalg;
}

TEMPLATE_LIST_TEST_CASE("every preset gives what it reports, and dearer ones are better, for every format", "",
                        format_list) {
  problem const p(40, 128, 512, 1);
  auto const h = damped(p.h.view(), p.tokens), g = damped(p.g.view(), p.tokens);
  std::vector<double> coupled;
  for (auto const& preset : solver_presets()) {
    auto const context = p.both_sided();
    auto const result = solve<TestType>(p.weights.view(), context, preset.name, linalg);
    auto const d = deviations(p.weights, result.quantized);
    double squares = 0;
    for (double x : d) squares += x * x;
    REQUIRE(result.report.squared_error == Approx(squares).epsilon(1e-6));
    if (!has_gram_solvers<TestType>) continue;
    bool const is_coupled = result.report.solver == two_sided::name;
    double const expected = is_coupled ? total(coupled_objectives(d, g, h, 40)) : total(row_objectives(d, h));
    REQUIRE(result.report.stages.back().after.value() == Approx(expected).epsilon(1e-4));
    coupled.push_back(total(coupled_objectives(d, g, h, 40)));
  }
  if (coupled.empty()) return;
  REQUIRE(coupled[2] < 0.9 * coupled[1]);
  REQUIRE(coupled[3] <= coupled[2] * 1.001);
}
