// No stage makes anything worse: on many random problems of every format, each stage's own numbers, and those that
// plain float64 sums give for its bytes.
#include <cstdlib>
#include <string>

#include "prismaquant/formats/format_list.hpp"
#include "solver/problems.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

eigen_backend const linalg;

std::size_t problem_count() {
  char const* const asked = std::getenv("PRISMAQUANT_TEST_PROBLEMS");
  return asked != nullptr ? std::stoul(asked) : 1000;
}

// From one row to two tiles of descent, from one group to two strips; few tokens and many.
template <class F>
problem draw(unsigned seed) {
  std::mt19937 generator(seed);
  auto const pick = [&](std::size_t low, std::size_t high) {
    return std::uniform_int_distribution<std::size_t>(low, high)(generator);
  };
  bool const large = seed % 100 == 0;
  std::size_t const unit = detail::in_groups<F> ? F::block_shape::columns : 1;
  std::size_t const columns =
      unit == 1 ? pick(1, large ? 150 : 40) : unit * pick(1, large ? 160 / unit + 1 : 32 / unit + 1);
  return problem(pick(1, large ? 150 : 6), columns, pick(1, 3 * columns), seed);
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("every stage lowers the objective of every row or keeps it", "", format_list) {
  using F = TestType;
  if (!has_gram_solvers<F>) return;
  std::vector<stage> const chain{rtn{}, scale_sweep{}, gptq{}, coordinate_descent{}};
  for (unsigned seed = 0; seed < problem_count(); ++seed) {
    auto const p = draw<F>(seed);
    auto context = p.one_sided();
    context.global_scale = shared_global_scale<F>(std::span<stage const>(chain), largest_magnitude(p.weights.view()));
    auto const h = damped(p.h.view(), p.tokens);
    std::vector<double> before;
    for (std::size_t length = 1; length <= chain.size(); ++length) {
      auto const result = solve<F>(p.weights.view(), context, std::span(chain).first(length), linalg);
      auto const after = row_objectives(deviations(p.weights, result.quantized), h);
      CAPTURE(seed, length, p.weights.rows, p.weights.columns, p.tokens);
      for (std::size_t r = 0; r < before.size(); ++r)
        REQUIRE(after[r] <= before[r] * (1 + 1e-5) + 1e-9 * total(before));
      auto const& report = result.report.stages.back();
      REQUIRE(report.after.value() == Approx(total(after)).epsilon(1e-4).margin(1e-12));
      if (length > 1) REQUIRE(report.after.value() <= report.before.value());
      before = after;
    }
  }
}

TEMPLATE_LIST_TEST_CASE("two-sided descent lowers the objective of every block of rows or keeps it", "", format_list) {
  using F = TestType;
  if (!has_gram_solvers<F>) return;
  for (unsigned seed = 0; seed < problem_count(); ++seed) {
    auto const p = draw<F>(seed);
    std::size_t const block = std::min<std::size_t>(seed % 3 == 0 ? p.weights.rows : 1 + seed % 5, p.weights.rows);
    std::vector<stage> const chain{scale_sweep{}, gptq{}, coordinate_descent{.sweeps = 1},
                                   two_sided{.block = block, .passes = 2}};
    auto const h = damped(p.h.view(), p.tokens), g = damped(p.g.view(), p.tokens);
    auto const context = p.both_sided();
    auto const start = solve<F>(p.weights.view(), context, std::span(chain).first(1), linalg);
    auto const result = solve<F>(p.weights.view(), context, chain, linalg);
    auto const before = coupled_objectives(deviations(p.weights, start.quantized), g, h, block);
    auto const after = coupled_objectives(deviations(p.weights, result.quantized), g, h, block);
    CAPTURE(seed, block, p.weights.rows, p.weights.columns, p.tokens);
    for (std::size_t b = 0; b < before.size(); ++b) REQUIRE(after[b] <= before[b] * (1 + 1e-4) + 1e-9 * total(before));
    auto const& stages = result.report.stages;
    for (std::size_t i = 1; i < stages.size(); ++i) REQUIRE(stages[i].after.value() <= stages[i].before.value());
    REQUIRE(stages.front().after.value() == Approx(total(before)).epsilon(1e-4).margin(1e-12));
    REQUIRE(stages.back().after.value() == Approx(total(after)).epsilon(1e-4).margin(1e-12));
  }
}
