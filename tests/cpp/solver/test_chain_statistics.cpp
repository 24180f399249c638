// What a chain is told: good, bad, too little.
#include "prismaquant/formats/format_list.hpp"
#include "solver/problems.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using namespace prismaquant::test;
using Catch::Matchers::Contains;

namespace {

eigen_backend const linalg;
std::vector<stage> const one_sided{gptq{}, coordinate_descent{}};

template <class F>
auto run(problem const& p, solve_context const& context, std::vector<stage> const& stages) {
  return solve<F>(p.weights.view(), context, stages, linalg);
}

template <class F>
double objective(problem const& p, quantized_matrix<F> const& q, square_matrix const& h) {
  return total(row_objectives(deviations(p.weights, q), h));
}

}  // namespace

TEST_CASE("scales in the loop beat the swept ones, in the same order, on nearly every row") {
  problem const p(200, 256, 1024, 3);
  auto const h = damped(p.h.view(), p.tokens);
  auto const chosen = run<nvfp4>(p, p.one_sided(), {gptq{.order = column_order::group_activation}});
  auto const given = run<nvfp4>(
      p, p.one_sided(), {scale_sweep{}, gptq{.order = column_order::group_activation, .scales = scale_choice::given}});
  auto const a = row_objectives(deviations(p.weights, chosen.quantized), h);
  auto const b = row_objectives(deviations(p.weights, given.quantized), h);
  std::size_t better = 0;
  for (std::size_t r = 0; r < 200; ++r) better += a[r] <= b[r] ? 1u : 0u;
  REQUIRE(better >= 190);
}

TEST_CASE("a Gram of zeros stands for the plain squared error") {
  problem p(10, 64, 100, 1);
  std::fill(p.h.elements.begin(), p.h.elements.end(), 0.0f);
  auto const result = run<nvfp4>(p, p.one_sided(), one_sided);
  REQUIRE(result.report.dead_columns == 64);
  REQUIRE(result.report.stages.back().after.value() == Approx(result.report.squared_error).epsilon(1e-4));
  auto const sweep = run<nvfp4>(p, {}, {scale_sweep{}});
  REQUIRE(result.report.squared_error <= sweep.report.squared_error * (1 + 1e-6));
}

TEST_CASE("dead columns are counted, and cost nothing") {
  problem p(10, 64, 300, 2);
  for (std::size_t c : {std::size_t{3}, std::size_t{40}}) {
    for (std::size_t i = 0; i < 64; ++i) p.h.elements[c * 64 + i] = p.h.elements[i * 64 + c] = 0.0f;
  }
  auto const result = run<nvfp4>(p, p.one_sided(), one_sided);
  REQUIRE(result.report.dead_columns == 2);
  REQUIRE(result.report.stages.back().retries == 0);
}

TEST_CASE("H of fewer tokens than columns, and one ill-conditioned, are solved") {
  for (std::size_t tokens : {std::size_t{1}, std::size_t{20}, std::size_t{500}}) {
    problem p(12, 64, tokens, 5);
    if (tokens == 500) {  // condition 10^12
      for (std::size_t r = 0; r < 64; ++r) {
        for (std::size_t c = 0; c < 64; ++c) {
          p.h.elements[r * 64 + c] *= std::pow(10.0f, -static_cast<float>(r + c) * 6.0f / 64.0f);
        }
      }
    }
    for (float damping : {0.0f, 1e-7f, 0.01f}) {
      auto context = p.one_sided();
      context.damping = damping;
      auto const result = run<nvfp4>(p, context, one_sided);
      auto const& first = result.report.stages.front();
      double const used = result.report.stages.back().damping;
      REQUIRE(objective(p, result.quantized, damped(p.h.view(), tokens, used)) ==
              Approx(result.report.stages.back().after.value()).epsilon(1e-3));
      if (first.retries != 0) REQUIRE(used > double{damping});  // a failure is reported, and answered by damping
      if (tokens < 64 && damping == 0.0f) REQUIRE(first.retries != 0);
    }
  }
}

TEST_CASE("a Gram that is none is refused after the last retry") {
  problem p(4, 32, 100, 1);
  for (std::size_t c = 0; c < 31; ++c) p.h.elements[c * 32 + c + 1] = p.h.elements[(c + 1) * 32 + c] = 1e12f;
  REQUIRE_THROWS_WITH(run<nvfp4>(p, p.one_sided(), one_sided), Contains("gram cannot be factored"));
}

TEST_CASE("bad statistics are refused by name, before any work") {
  problem p(8, 32, 100, 1);
  auto const refuses = [&](solve_context const& context, std::string const& message,
                           std::vector<stage> const& stages = {gptq{}, two_sided{}}) {
    REQUIRE_THROWS_WITH(run<nvfp4>(p, context, stages), Contains(message));
  };
  refuses({}, "gram is missing");
  refuses(p.one_sided(), "output_gram is missing");
  refuses(p.both_sided(), "cross_gram is missing", {shift{}, gptq{}});
  refuses(p.both_sided(), "must come first", {gptq{}, shift{}});
  refuses(p.both_sided(), "at least one stage", {});
  auto context = p.both_sided();
  context.tokens = 0;
  refuses(context, "tokens is 0");
  context = p.both_sided();
  context.gram = context.gram.part(0, 0, 31, 32);
  refuses(context, "gram");
  context = p.both_sided();
  context.output_gram = context.output_gram.part(0, 0, 7, 7);
  refuses(context, "output_gram");
  context = p.both_sided();
  context.damping = -1.0f;
  refuses(context, "damping is -1");
  for (float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    problem broken = p;
    broken.h.elements[5] = bad;
    REQUIRE_THROWS_WITH(run<nvfp4>(broken, broken.both_sided(), one_sided), Contains("gram"));
    broken = p;
    broken.g.elements[5] = bad;
    REQUIRE_THROWS_WITH(run<nvfp4>(broken, broken.both_sided(), {gptq{}, two_sided{}}), Contains("output_gram"));
    broken = p;
    broken.weights.elements[5] = bad;
    REQUIRE_THROWS_WITH(run<nvfp4>(broken, broken.both_sided(), one_sided), Contains("weight"));
  }
  problem negative = p;
  negative.h.elements[33] = -1.0f;
  REQUIRE_THROWS_WITH(run<nvfp4>(negative, negative.one_sided(), one_sided), Contains("row 1"));
}

TEST_CASE("columns that no group divides are refused, by formats with one scale per row solved") {
  problem const p(3, 40, 200, 1);
  REQUIRE_THROWS_WITH(run<mxfp4>(p, p.one_sided(), one_sided), Contains("40"));
  REQUIRE(run<fp8_e4m3_channel>(p, p.one_sided(), one_sided).report.stages.size() == 2);
}

TEST_CASE("one row, one column") {
  for (auto const& [rows, columns] : {std::pair{1, 64}, std::pair{5, 1}, std::pair{1, 1}}) {
    problem const p(static_cast<std::size_t>(rows), static_cast<std::size_t>(columns), 50, 4);
    auto const result = run<fp8_e4m3_channel>(p, p.both_sided(), {gptq{}, coordinate_descent{}, two_sided{}});
    REQUIRE(result.report.squared_error < 1e-4);
  }
}

TEST_CASE("more columns than memory allows are refused before any work, naming the memory and the way out") {
  constexpr std::size_t columns = 50000;
  float const zero = 0.0f;
  matrix_view<float const> const weights{&zero, 2, columns, 0, 0}, gram{&zero, columns, columns, 0, 0};
  std::vector<stage> const sweep{scale_sweep{}};
  solve_context context{.gram = gram, .tokens = 1, .memory_limit = std::size_t{8} << 30};
  REQUIRE_THROWS_WITH(solve<nvfp4>(weights, context, one_sided, linalg),
                      Contains("GB") && Contains("scale_sweep") && Contains("memory_limit"));
  REQUIRE(solve<nvfp4>(weights, {}, sweep, linalg).report.squared_error == 0.0);
}

TEST_CASE("an expert without tokens is swept, one with few leans on all") {
  problem few(12, 64, 8, 7);
  problem const all(12, 64, 4096, 7);  // the same distribution
  auto const h = damped(all.h.view(), all.tokens, 0.01);
  auto context = few.one_sided();
  auto const alone = run<nvfp4>(few, context, one_sided);
  context.pooled_gram = all.h.view();
  context.pooled_tokens = all.tokens;
  auto const pooled = run<nvfp4>(few, context, one_sided);
  REQUIRE(objective(few, pooled.quantized, h) < objective(few, alone.quantized, h));

  std::fill(few.h.elements.begin(), few.h.elements.end(), 0.0f);
  auto none = few.one_sided();
  none.tokens = 0;
  auto const swept = run<nvfp4>(few, none, one_sided);
  REQUIRE(swept.report.stages.size() == 1);
  REQUIRE(swept.report.stages.front().name == "scale_sweep");
  REQUIRE(swept.report.squared_error == run<nvfp4>(few, {}, {scale_sweep{}}).report.squared_error);
}

TEST_CASE("a shift of full strength without shrinkage aims at the least squares of the outputs") {
  std::size_t const columns = 48, tokens = 600;
  random_matrix const weights(20, columns, 1);
  auto const seen = correlated(tokens, columns, 2);
  auto source = seen;
  random_matrix const noise(tokens, columns, 9, 0.3f);
  for (std::size_t i = 0; i < source.elements.size(); ++i) source.elements[i] += noise.elements[i];
  auto const h = gram(seen, seen), cross = gram(source, seen);
  solve_context const context{.gram = h.view(), .tokens = tokens, .cross_gram = cross.view(), .damping = 1e-4f};
  auto const outputs_error = [&](quantized_matrix<fp8_e4m3_channel> const& q) {
    std::vector<float> decoded(weights.elements.size());
    decode<fp8_e4m3_channel>(q.view(), view(std::span<float>(decoded), 20, columns));
    double sum = 0;
    for (std::size_t t = 0; t < tokens; ++t) {
      for (std::size_t r = 0; r < 20; ++r) {
        double difference = 0;
        for (std::size_t c = 0; c < columns; ++c) {
          difference += double{decoded[r * columns + c]} * double{seen.view()(t, c)} -
                        double{weights.view()(r, c)} * double{source.view()(t, c)};
        }
        sum += difference * difference;
      }
    }
    return sum;
  };
  auto const solve_with = [&](std::vector<stage> const& stages) {
    return outputs_error(solve<fp8_e4m3_channel>(weights.view(), context, stages, linalg).quantized);
  };
  double const plain = solve_with({gptq{}}), half = solve_with({shift{.strength = 0.5f, .shrinkage = 0.0f}, gptq{}}),
               full = solve_with({shift{.strength = 1.0f, .shrinkage = 0.0f}, gptq{}}),
               over = solve_with({shift{.strength = 1.5f, .shrinkage = 0.0f}, gptq{}});
  REQUIRE(full < half);
  REQUIRE(half < plain);
  REQUIRE(full < over);
}

TEST_CASE("diagonal blocks of G are worth the whole matrix") {
  problem const p(32, 64, 400, 6);
  random_matrix blocks(32, 8, 0);
  for (std::size_t r = 0; r < 32; ++r) {
    for (std::size_t c = 0; c < 8; ++c) blocks.elements[r * 8 + c] = p.g.view()(r, r / 8 * 8 + c);
  }
  auto context = p.both_sided();
  auto const whole = run<nvfp4>(p, context, {gptq{}, two_sided{.block = 8}});
  context.output_gram = blocks.view();
  auto const parts = run<nvfp4>(p, context, {gptq{}, two_sided{}});
  REQUIRE(deviations(p.weights, whole.quantized) == deviations(p.weights, parts.quantized));
  REQUIRE(whole.report.stages.back().after == parts.report.stages.back().after);
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
