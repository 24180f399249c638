// No stage makes a chain worse, in float64 and from what is stored, on random problems of every format.
// PRISMAQUANT_TEST_PROBLEMS: how many of each format (1000 by default).
#include <cstdlib>

#include "linalg/reference.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "solver/problems.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

unsigned problem_count() {
  char const* const text = std::getenv("PRISMAQUANT_TEST_PROBLEMS");
  return text != nullptr ? static_cast<unsigned>(std::strtoul(text, nullptr, 10)) : 1000u;
}

template <class F>
std::size_t random_columns(std::mt19937& generator) {
  constexpr std::size_t group = F::block_shape::columns, most = 96;
  if (F::ragged_blocks) return 16 + generator() % (most - 15);
  return group * (1 + generator() % std::max<std::size_t>(1, most / group));
}

std::vector<stage> chain_of(unsigned i) {
  switch (i % 4) {
    case 0:
      return {rtn{}, gptq{}, coordinate_descent{}};
    case 1:
      return {scale_sweep{.use_gram_diagonal = true}, gptq{column_order::natural, scale_choice::given},
              coordinate_descent{.sweeps = 1, .refit_scales = false}, rtn{}, coordinate_descent{}};
    case 2:
      return {scale_sweep{}, gptq{}, coordinate_descent{}, two_sided{.block = 5, .passes = 1}};
    default:
      return {rtn{}, two_sided{.passes = 1, .inner_sweeps = 1}, coordinate_descent{.sweeps = 2}, gptq{}, two_sided{}};
  }
}

// The objective per unit of what `solve` stored, and what it reported of the last of its `count` stages.
struct outcome {
  std::vector<double> objectives;
  stage_report report;
};

// The first `count` stages, by the yardstick of the whole chain: a last stage without passes changes nothing.
template <class F>
outcome after(std::size_t count, std::vector<stage> const& chain, problem const& p, solve_context const& context,
              lapack_backend const& linalg) {
  std::vector<stage> stages(chain.begin(), chain.begin() + static_cast<std::ptrdiff_t>(count));
  if (count != chain.size()) {
    auto const* const coupled = std::get_if<two_sided>(&chain.back());
    if (coupled != nullptr) {
      stages.emplace_back(two_sided{.block = coupled->block, .passes = 0});
    } else {
      stages.emplace_back(coordinate_descent{.sweeps = 0});
    }
  }
  auto const result = solve<F>(p.weights.view(), context, std::span<stage const>(stages), linalg);
  auto const d = deviations(p.weights, result.quantized);
  auto const h = damped(p.h.view(), p.tokens);
  outcome done{{}, result.report.stages[count - 1]};
  if (auto const* const coupled = std::get_if<two_sided>(&chain.back())) {
    std::size_t const block = coupled->block != 0 ? std::min(coupled->block, p.weights.rows) : p.weights.rows;
    done.objectives = coupled_objectives(d, damped(p.g.view(), p.tokens), h, block);
  } else {
    done.objectives = row_objectives(d, h);
  }
  return done;
}

template <class F>
void require_monotone(unsigned i, std::string_view isa) {
  std::mt19937 generator(i);
  std::size_t const rows = 4 + generator() % 14, columns = random_columns<F>(generator);
  problem const p(rows, columns, columns / 2 + generator() % (2 * columns), 100 * i);
  auto const context = p.both_sided();
  auto const all = backends();
  auto const& linalg = all[generator() % all.size()];
  auto const chain = chain_of(i);
  INFO(F::name << ", problem " << i << ", " << rows << " x " << columns << ", " << linalg.name << ", " << isa);
  outcome before;
  for (std::size_t count = 1; count <= chain.size(); ++count) {
    auto const now = after<F>(count, chain, p, context, linalg.functions);
    INFO("stage " << count << ", " << now.report.name);
    REQUIRE(now.report.after.value() == Approx(total(now.objectives)).epsilon(1e-4));
    REQUIRE(now.report.before.has_value() == (count > 1));
    if (count > 1) {
      REQUIRE(now.report.after.value() <= now.report.before.value());
      REQUIRE(now.report.before.value() == before.report.after.value());
      for (std::size_t unit = 0; unit < now.objectives.size(); ++unit) {
        INFO("unit " << unit);
        REQUIRE(now.objectives[unit] <= before.objectives[unit] * (1 + 1e-9));
      }
    }
    before = now;
  }
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("no stage of a chain makes any row worse, on 1,000 random problems per format", "",
                        format_list) {
  if constexpr (has_gram_solvers<TestType>) {
    for (unsigned i = 0; i < problem_count(); ++i) require_monotone<TestType>(i, "widest");
  }
}

TEMPLATE_TEST_CASE("nor by the plain kernels", "", nvfp4, mxfp8_e4m3, fp8_e4m3_channel, int4_g32) {
  std::string const before = active_kernels().isa;
  use_isa("scalar");
  for (unsigned i = 0; i < (problem_count() + 49) / 50; ++i) require_monotone<TestType>(i, "scalar");
  use_isa(before);
}
