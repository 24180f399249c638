// Grams that are ill-conditioned, singular, zero or no Grams at all; shapes at the edge and beyond it.
#include <limits>

#include "linalg/reference.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "solver/problems.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

using Catch::Matchers::Contains;

std::vector<stage> const one_sided_chain = {scale_sweep{}, gptq{}, coordinate_descent{}};
std::vector<stage> const whole_chain = {scale_sweep{}, gptq{}, coordinate_descent{}, two_sided{}};

template <class F>
solution<F> run(matrix_view<float const> weights, solve_context const& context, std::vector<stage> const& stages,
                lapack_backend const& linalg = eigen_backend{}) {
  return solve<F>(weights, context, std::span<stage const>(stages), linalg);
}

// Runs `stages` with every backend: stages in which no objective rises, and a loss that is the one of what is stored.
template <class F>
void require_sound(problem const& p, solve_context const& context, std::vector<stage> const& stages) {
  auto const share = [&](stage_report const& s) { return s.damping; };
  for (auto const& [name, linalg] : backends()) {
    INFO(F::name << ", " << name);
    auto const result = run<F>(p.weights.view(), context, stages, linalg);
    auto const& last = result.report.stages.back();
    auto const h = damped(p.h.view(), p.tokens, share(last));
    auto const d = deviations(p.weights, result.quantized);
    REQUIRE(std::isfinite(result.report.squared_error));
    for (auto const& s : result.report.stages) {
      if (s.before) REQUIRE(*s.after <= *s.before);
    }
    if (result.report.solver == two_sided::name) return;
    auto const objectives = row_objectives(d, h);
    double size = 0;  // of what products in float32 sum
    for (std::size_t i = 0; i < d.size(); ++i) size += d[i] * d[i] * h(i % h.n, i % h.n);
    REQUIRE(last.after.value() == Approx(total(objectives)).margin(1e-5 * size));
    auto const first = run<F>(p.weights.view(), context, {stages[0], coordinate_descent{.sweeps = 0}}, linalg);
    REQUIRE(first.report.stages[0].damping <= last.damping);
    auto const start = row_objectives(deviations(p.weights, first.quantized), h);
    for (std::size_t r = 0; r < start.size(); ++r) REQUIRE(objectives[r] <= start[r] * (1 + 1e-9));
  }
}

problem with_gram(std::size_t rows, random_matrix const& inputs, unsigned seed) {
  problem p(rows, inputs.columns, inputs.rows, seed);
  p.h = gram(inputs, inputs);
  return p;
}

}  // namespace

TEMPLATE_TEST_CASE("Grams of a condition number of 10^12 and of few inputs are solved", "", nvfp4, mxfp8_e4m3,
                   fp8_e4m3_channel, int4_g32_asym) {
  using F = TestType;
  auto steep = correlated(400, 96, 41);
  for (std::size_t t = 0; t < 400; ++t) {
    for (std::size_t c = 0; c < 96; ++c)
      steep.elements[t * 96 + c] *= std::pow(10.0f, -6.0f * static_cast<float>(c) / 95);
  }
  for (auto const& p :
       {with_gram(20, steep, 1), with_gram(20, correlated(5, 96, 42), 2), with_gram(20, correlated(1, 96, 43), 3)}) {
    for (float const damping : {1.0f, 1e-2f, 1e-6f, 0.0f}) {
      INFO(p.tokens << " tokens, damping " << damping);
      auto context = p.both_sided();
      context.damping = damping;
      require_sound<F>(p, context, one_sided_chain);
      require_sound<F>(p, context, whole_chain);
    }
  }
}

TEST_CASE("what cannot be factored is damped more, and that is reported") {
  problem const p = with_gram(20, correlated(5, 96, 44), 4);  // of rank 5
  auto context = p.one_sided();
  context.damping = 0.0f;
  for (auto const& [name, linalg] : backends()) {
    INFO(name);
    auto const result = run<nvfp4>(p.weights.view(), context, one_sided_chain, linalg);
    auto const& factored = result.report.stages[1];
    REQUIRE(factored.retries >= 1);
    REQUIRE(factored.damping >= 1e-6);
    REQUIRE(factored.damping < 1e-2);  // not the identity, nor anything near it
    auto const h = damped(p.h.view(), p.tokens, factored.damping);
    REQUIRE(factored.after.value() ==
            Approx(total(row_objectives(
                       deviations(p.weights,
                                  run<nvfp4>(p.weights.view(), context, {scale_sweep{}, gptq{}}, linalg).quantized),
                       h)))
                .epsilon(1e-3));
    REQUIRE(factored.after.value() < 0.8 * factored.before.value());
    context.damping = 1e-2f;
    REQUIRE(run<nvfp4>(p.weights.view(), context, one_sided_chain, linalg).report.stages[1].retries == 0);
    context.damping = 0.0f;
  }
}

TEST_CASE("what is no Gram is refused after all retries, by name") {
  problem p(4, 16, 50, 45);
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t j = 0; j < 16; ++j) p.h.elements[i * 16 + j] = i == j ? 1.0f : 1e9f;
  }
  REQUIRE_THROWS_WITH(run<nvfp4>(p.weights.view(), p.one_sided(), one_sided_chain),
                      Contains("gram cannot be factored"));
}

TEST_CASE("a Gram of zeros counts all columns as dead and weighs them alike") {
  problem p(20, 64, 100, 46);
  std::fill(p.h.elements.begin(), p.h.elements.end(), 0.0f);
  auto const result = run<nvfp4>(p.weights.view(), p.one_sided(), one_sided_chain);
  REQUIRE(result.report.dead_columns == 64);
  REQUIRE(result.report.stages.back().after.value() == Approx(result.report.squared_error).epsilon(1e-5));
  auto const swept = run<nvfp4>(p.weights.view(), {}, {scale_sweep{}});
  REQUIRE(result.report.squared_error <= swept.report.squared_error * (1 + 1e-6));

  std::fill(p.g.elements.begin(), p.g.elements.end(), 0.0f);  // uncoupled rows
  auto const coupled = run<nvfp4>(p.weights.view(), p.both_sided(), whole_chain);
  REQUIRE(coupled.report.stages.back().after.value() == Approx(coupled.report.squared_error).epsilon(1e-5));
}

TEST_CASE("columns without inputs are counted, stored to the nearest, and do not disturb the others") {
  problem p(20, 64, 400, 47);
  auto context = p.one_sided();
  context.damping = 0.05f;
  for (std::size_t const dead : {3u, 17u, 63u}) {
    for (std::size_t i = 0; i < 64; ++i) p.h.elements[dead * 64 + i] = p.h.elements[i * 64 + dead] = 0.0f;
  }
  REQUIRE(run<nvfp4>(p.weights.view(), context, one_sided_chain).report.dead_columns == 3);
  auto const result = run<fp8_e4m3_channel>(p.weights.view(), context, one_sided_chain);
  REQUIRE(result.report.dead_columns == 3);
  auto const nearest = run<fp8_e4m3_channel>(p.weights.view(), {}, {rtn{}});
  for (std::size_t r = 0; r < 20; ++r) {
    for (std::size_t const dead : {3u, 17u, 63u}) {
      REQUIRE(result.quantized.view().codes(r, dead) == nearest.quantized.view().codes(r, dead));
    }
  }
  context.damping = 0.0f;  // a zero on the diagonal: nothing to factor
  auto const retried = run<nvfp4>(p.weights.view(), context, one_sided_chain);
  REQUIRE(retried.report.stages[1].retries >= 1);
  REQUIRE(retried.report.stages[1].after.value() < 0.8 * retried.report.stages[1].before.value());
}

TEST_CASE("NaN and infinity are refused before any work, with the argument's name") {
  for (float const bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    problem p(8, 32, 50, 48);
    auto const cross = gram(correlated(50, 32, 1), correlated(50, 32, 2));
    auto const refused = [&](std::vector<float>& elements, std::string const& name) {
      float const good = elements[5];
      elements[5] = bad;
      auto context = p.both_sided();
      context.cross_gram = cross.view();
      context.pooled_gram = p.h.view();
      REQUIRE_THROWS_AS(run<nvfp4>(p.weights.view(), context, whole_chain), numeric_error);
      REQUIRE_THROWS_WITH(run<nvfp4>(p.weights.view(), context, whole_chain), Contains(name));
      elements[5] = good;
    };
    refused(p.h.elements, "gram");
    refused(p.g.elements, "output_gram");
    refused(p.weights.elements, "weight");
    refused(const_cast<std::vector<float>&>(cross.elements), "gram");
  }
  problem p(8, 32, 50, 49);
  p.h.elements[33] = -1.0f;
  REQUIRE_THROWS_WITH(run<nvfp4>(p.weights.view(), p.one_sided(), one_sided_chain), Contains("gram is -1.0"));
  auto context = problem(8, 32, 50, 49).one_sided();
  problem const good(8, 32, 50, 49);
  context = good.one_sided();
  context.damping = -0.1f;
  REQUIRE_THROWS_WITH(run<nvfp4>(good.weights.view(), context, one_sided_chain), Contains("damping"));
}

TEST_CASE("wrong shapes and missing statistics are refused with the argument's name") {
  problem const p(8, 32, 50, 50), other(9, 64, 50, 51);
  auto const refused = [&](auto change, std::string const& name, std::vector<stage> const& stages = whole_chain) {
    auto context = p.both_sided();
    change(context);
    INFO(name);
    REQUIRE_THROWS_AS(run<nvfp4>(p.weights.view(), context, stages), shape_error);
    REQUIRE_THROWS_WITH(run<nvfp4>(p.weights.view(), context, stages), Contains(name));
  };
  refused([&](auto& c) { c.gram = other.h.view(); }, "gram");
  refused([&](auto& c) { c.gram = p.h.view().part(0, 0, 32, 31); }, "gram");
  refused([&](auto& c) { c.gram = {}; }, "gram is missing");
  refused([&](auto& c) { c.output_gram = other.g.view(); }, "output_gram");
  refused([&](auto& c) { c.output_gram = p.g.view().part(0, 0, 7, 8); }, "output_gram");
  refused([&](auto& c) { c.output_gram = {}; }, "output_gram is missing");
  refused([&](auto& c) { c.pooled_gram = other.h.view(); }, "pooled_gram");
  refused([&](auto& c) { c.cross_gram = other.h.view(); }, "cross_gram", {shift{}, gptq{}});
  refused([](auto&) {}, "cross_gram is missing", {shift{}, gptq{}});
  refused([&](auto& c) { c.importance = other.weights.view(); }, "importance");

  auto context = p.both_sided();
  context.tokens = 0;
  REQUIRE_THROWS_WITH(run<nvfp4>(p.weights.view(), context, whole_chain), Contains("tokens is 0"));
  context = p.both_sided();
  REQUIRE_THROWS_AS(run<bf16>(p.weights.view(), context, whole_chain), format_error);
  REQUIRE_THROWS_AS(run<nvfp4>(p.weights.view(), context, {}), format_error);
  REQUIRE_THROWS_AS(run<nvfp4>(p.weights.view(), context, {gptq{}, shift{}}), format_error);
  REQUIRE_THROWS_AS(run<int4_g32>(p.weights.view(), context, {gptq{.scales = scale_choice::in_loop}}), format_error);
  REQUIRE_THROWS_AS(run<nvfp4>(p.weights.view(), context, {gptq{column_order::activation, scale_choice::in_loop}}),
                    format_error);
}

TEMPLATE_LIST_TEST_CASE("columns that are no multiple of the group: an error that says so, or they work", "",
                        format_list) {
  using F = TestType;
  if constexpr (has_gram_solvers<F>) {
    problem const p(8, 40, 100, 52);
    if (F::ragged_blocks) {
      require_sound<F>(p, p.both_sided(), whole_chain);
    } else if (40 % F::block_shape::columns != 0) {
      REQUIRE_THROWS_AS(run<F>(p.weights.view(), p.both_sided(), whole_chain), shape_error);
      REQUIRE_THROWS_WITH(run<F>(p.weights.view(), p.both_sided(), whole_chain),
                          Contains("weight") && Contains("columns") && Contains("40"));
    }
  }
}

TEMPLATE_LIST_TEST_CASE("one row, one group of columns, one column, nothing at all", "", format_list) {
  using F = TestType;
  if constexpr (has_gram_solvers<F>) {
    std::size_t const group = F::ragged_blocks ? 1 : F::block_shape::columns;
    for (std::size_t const rows : {std::size_t{1}, std::size_t{5}}) {
      for (std::size_t const columns : {group, 2 * group}) {
        problem const p(rows, columns, 100, 53);
        require_sound<F>(p, p.both_sided(), one_sided_chain);
        require_sound<F>(p, p.both_sided(), whole_chain);
      }
    }
    random_matrix const none(0, group, 1);
    auto const context = problem(1, group, 10, 54);
    REQUIRE(run<F>(none.view(), context.one_sided(), one_sided_chain).report.squared_error == 0);
  }
}
