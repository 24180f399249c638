// What chains are solved for: shifted targets, coupled rows, Grams of experts that few tokens reached.
#include "kernels/everywhere.hpp"
#include "solver/reference_gptq.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

eigen_backend const linalg;

template <class F>
solution<F> run(problem const& p, solve_context const& context, std::vector<stage> const& stages) {
  return solve<F>(p.weights.view(), context, std::span<stage const>(stages), linalg);
}

// Inverse by the factor: U'U.
square_matrix inverse_of(square_matrix const& h) {
  auto const u = upper_factor_of_inverse(h);
  square_matrix result(h.n);
  for (std::size_t i = 0; i < h.n; ++i) {
    for (std::size_t j = 0; j < h.n; ++j) {
      for (std::size_t k = 0; k <= std::min(i, j); ++k) result(i, j) += u(k, i) * u(k, j);
    }
  }
  return result;
}

// Inputs of the source, and those behind an already quantized prefix.
struct shifted_problem : problem {
  explicit shifted_problem(std::size_t columns)
      : problem(24, columns, 20 * columns, 71), source(correlated(tokens, columns, 72)), seen(source) {
    random_matrix const noise(tokens, columns, 73, 0.3f);
    for (std::size_t i = 0; i < seen.elements.size(); ++i) seen.elements[i] += noise.elements[i];
    h = gram(seen, seen);
    cross = gram(source, seen);
  }
  solve_context context() const {
    auto c = one_sided();
    c.cross_gram = cross.view();
    return c;
  }
  random_matrix source, seen, cross{0, 0, 0};
};

// The weights whose outputs on `seen` come nearest to those of `weights` on `source`: w S'X (X'X)^-1.
std::vector<double> least_squares(shifted_problem const& p) {
  std::size_t const n = p.h.columns;
  auto const inverse = inverse_of(damped(p.h.view(), 1, 0.0));
  std::vector<double> moved(n), result(p.weights.elements.size());
  for (std::size_t r = 0; r < p.weights.rows; ++r) {
    for (std::size_t j = 0; j < n; ++j) {
      moved[j] = 0;
      for (std::size_t i = 0; i < n; ++i) moved[j] += double{p.weights.view()(r, i)} * double{p.cross.view()(i, j)};
    }
    for (std::size_t j = 0; j < n; ++j) {
      for (std::size_t i = 0; i < n; ++i) result[r * n + j] += moved[i] * inverse(i, j);
    }
  }
  return result;
}

}  // namespace

TEST_CASE("a shift of strength 1 without shrinkage solves for the least-squares target") {
  shifted_problem const p(48);
  auto const target = least_squares(p);
  auto const h = damped(p.h.view(), p.tokens);
  double moved = 0, size = 0;
  for (std::size_t i = 0; i < target.size(); ++i) {
    double const w = double{p.weights.elements[i]};
    moved += (target[i] - w) * (target[i] - w);
    size += w * w;
  }
  REQUIRE(moved > 1e-3 * size);  // it is another one than the weights
  for (float const strength : {0.0f, 0.5f, 1.0f}) {
    auto const result = run<nvfp4>(p, p.context(), {shift{.strength = strength, .shrinkage = 0.0f}, gptq{}});
    auto d = deviations(p.weights, result.quantized);
    for (std::size_t i = 0; i < d.size(); ++i) d[i] -= double{strength} * (target[i] - double{p.weights.elements[i]});
    INFO(strength);
    REQUIRE(result.report.stages[1].after.value() == Approx(total(row_objectives(d, h))).epsilon(1e-4));
    REQUIRE_FALSE(result.report.stages[0].after.has_value());
  }
}

TEST_CASE("the shift takes errors of the prefix off the outputs") {
  shifted_problem const p(64);
  auto const output_error = [&](std::vector<stage> const& stages) {
    auto const d = deviations(p.weights, run<fp8_e4m3_channel>(p, p.context(), stages).quantized);
    double sum = 0;
    for (std::size_t t = 0; t < p.tokens; ++t) {
      for (std::size_t r = 0; r < p.weights.rows; ++r) {
        double error = 0;
        for (std::size_t c = 0; c < 64; ++c) {
          double const w = double{p.weights.view()(r, c)};
          error += (w + d[r * 64 + c]) * double{p.seen.view()(t, c)} - w * double{p.source.view()(t, c)};
        }
        sum += error * error;
      }
    }
    return sum;
  };
  double const without = output_error({gptq{}}), with = output_error({shift{}, gptq{}});
  double const full = output_error({shift{.strength = 1.0f, .shrinkage = 0.0f}, gptq{}});
  REQUIRE(with < 0.95 * without);
  REQUIRE(full < with);
}

TEMPLATE_TEST_CASE("with the identity for G the two-sided objective is the one-sided one", "", nvfp4, mxfp8_e4m3,
                   fp8_e4m3_channel) {
  problem p(40, 96, 300, 74);
  for (std::size_t i = 0; i < 40; ++i) {
    for (std::size_t j = 0; j < 40; ++j) p.g.elements[i * 40 + j] = i == j ? static_cast<float>(p.tokens) : 0.0f;
  }
  auto context = p.both_sided();
  context.output_damping = 0.0f;
  auto const result = run<TestType>(p, context, {scale_sweep{}, two_sided{.passes = 50}});
  auto const one_sided =
      run<TestType>(p, p.one_sided(), {scale_sweep{}, coordinate_descent{.sweeps = 100, .refit_scales = false}});
  auto const h = damped(p.h.view(), p.tokens);
  auto const d = deviations(p.weights, result.quantized);
  REQUIRE(result.report.stages[1].after.value() == Approx(total(row_objectives(d, h))).epsilon(1e-5));
  REQUIRE(result.report.stages[1].before.value() == Approx(one_sided.report.stages[1].before.value()).epsilon(1e-5));
  // Both end at points that no change of one code improves, in other orders of changes.
  REQUIRE(result.report.stages[1].after.value() == Approx(one_sided.report.stages[1].after.value()).epsilon(0.03));
}

TEMPLATE_TEST_CASE("diagonal blocks of G give the bytes of the whole G with that block", "", nvfp4, int4_g32) {
  problem const p(70, 96, 300, 75);
  for (std::size_t const block : {1u, 16u, 33u, 70u}) {
    random_matrix blocks(70, block, 0);
    for (std::size_t r = 0; r < 70; ++r) {
      for (std::size_t c = 0; c < block; ++c) {
        std::size_t const column = r / block * block + c;
        blocks.elements[r * block + c] = column < 70 ? p.g.view()(r, column) : 0.0f;
      }
    }
    auto context = p.both_sided();
    auto const whole = run<TestType>(p, context, {scale_sweep{}, gptq{}, two_sided{.block = block}});
    context.output_gram = blocks.view();
    auto const parts = run<TestType>(p, context, {scale_sweep{}, gptq{}, two_sided{}});
    INFO("block " << block);
    require_equal(bytes_of(parts.quantized), bytes_of(whole.quantized), "blocks");
    REQUIRE(parts.report.stages[2].after == whole.report.stages[2].after);
    auto const coupled = coupled_objectives(deviations(p.weights, parts.quantized), damped(p.g.view(), p.tokens),
                                            damped(p.h.view(), p.tokens), block);
    REQUIRE(parts.report.stages[2].after.value() == Approx(total(coupled)).epsilon(1e-4));
  }
}

TEST_CASE("an expert that no token reached gets the data-free sweep") {
  problem const p(24, 64, 300, 76);
  random_matrix const zeros(64, 64, 0, 0.0f);
  auto const swept = run<nvfp4>(p, {}, {scale_sweep{}});
  for (auto const& context : {solve_context{.gram = zeros.view()}, solve_context{}}) {
    for (auto const& preset : {"fast", "best"}) {
      auto const result = solve<nvfp4>(p.weights.view(), context, preset, linalg);
      require_equal(bytes_of(result.quantized), bytes_of(swept.quantized), preset);
      REQUIRE(result.report.solver == "scale_sweep");
    }
  }
  auto context = p.both_sided();
  context.gram = zeros.view();
  context.tokens = 0;
  auto const result = run<nvfp4>(p, context, {scale_sweep{}, gptq{}, coordinate_descent{}, two_sided{}});
  require_equal(bytes_of(result.quantized), bytes_of(swept.quantized), "a list of stages");
  REQUIRE(result.report.solver == "scale_sweep");
}

TEST_CASE("an expert that few tokens reached is solved for (tokens H + columns pooled) / (tokens + columns)") {
  problem const all(24, 64, 2000, 77);
  for (std::size_t const tokens : {7u, 64u, 1000u}) {
    problem p(24, 64, tokens, 78);
    random_matrix blended(64, 64, 0);
    for (std::size_t i = 0; i < blended.elements.size(); ++i) {
      double const own = double{p.h.elements[i]} / static_cast<double>(tokens),
                   pooled = double{all.h.elements[i]} / 2000;
      double const n = static_cast<double>(tokens);
      blended.elements[i] = static_cast<float>((n * own + 64 * pooled) / (n + 64));
    }
    auto context = p.one_sided();
    context.damping = 0.1f;
    context.pooled_gram = all.h.view();
    context.pooled_tokens = 2000;
    auto const shrunk = run<nvfp4>(p, context, {gptq{}, coordinate_descent{}});
    solve_context by_hand{.gram = blended.view(), .tokens = 1, .damping = 0.1f};
    auto const expected = run<nvfp4>(p, by_hand, {gptq{}, coordinate_descent{}});
    INFO(tokens << " tokens");
    REQUIRE(shrunk.report.stages[1].after.value() == Approx(expected.report.stages[1].after.value()).epsilon(1e-4));
    auto const h = damped(blended.view(), 1, 0.1);
    REQUIRE(shrunk.report.stages[1].after.value() ==
            Approx(total(row_objectives(deviations(p.weights, shrunk.quantized), h))).epsilon(1e-4));
    context.pooled_gram = {};
    auto const own = run<nvfp4>(p, context, {gptq{}, coordinate_descent{}});
    REQUIRE(bytes_of(own.quantized) != bytes_of(shrunk.quantized));
  }
}

TEST_CASE("one weight per row changes what rows count, not how they are solved") {
  problem const p(32, 64, 400, 6);
  random_matrix weights(32, 1, 0);
  for (std::size_t r = 0; r < 32; ++r) weights.elements[r] = 400.0f * static_cast<float>(1 + r % 4);
  auto context = p.both_sided();
  context.output_gram = weights.view();
  auto const result = run<nvfp4>(p, context, {gptq{}, two_sided{}});
  auto const rows = row_objectives(deviations(p.weights, result.quantized), damped(p.h.view(), p.tokens));
  double const damping = damping_rule(32, 400);
  double expected = 0;
  for (std::size_t r = 0; r < 32; ++r) expected += (static_cast<double>(1 + r % 4) + 2.5 * damping) * rows[r];
  REQUIRE(result.report.stages.back().after.value() == Approx(expected).epsilon(1e-4));
}
