// What a chain stores depends on nothing but its arguments: not on threads, the order of work, other rows.
#include <functional>

#include "kernels/everywhere.hpp"
#include "solver/problems.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

eigen_backend const linalg;

// Calls of one index each, in an order of its own.
struct reordering_executor {
  unsigned seed;  // 0: backwards
  void for_ranges(std::size_t count, std::function<void(std::size_t, std::size_t)> const& body) const {
    std::vector<std::size_t> order(count);
    for (std::size_t i = 0; i < count; ++i) order[i] = count - 1 - i;
    if (seed != 0) std::shuffle(order.begin(), order.end(), std::mt19937(seed));
    for (std::size_t const i : order) body(i, i + 1);
  }
};

// Any executor behind one type: the chain is compiled once per format.
struct any_executor {
  std::function<void(std::size_t, std::function<void(std::size_t, std::size_t)> const&)> run;
  void for_ranges(std::size_t count, std::function<void(std::size_t, std::size_t)> const& body) const {
    run(count, body);
  }
};

template <class Executor>
any_executor any(Executor executor) {
  return {[executor](std::size_t count, std::function<void(std::size_t, std::size_t)> const& body) {
    executor.for_ranges(count, body);
  }};
}

template <class F>
solution<F> run(problem const& p, solve_context const& context, std::vector<stage> const& stages,
                any_executor const& executor) {
  return solve<F>(p.weights.view(), context, std::span<stage const>(stages), linalg, executor);
}

std::vector<std::vector<stage>> chains() {
  return {{shift{}, gptq{}, coordinate_descent{}, two_sided{}},
          {scale_sweep{}, gptq{}, coordinate_descent{.sweeps = 2}, two_sided{.block = 48, .passes = 1}},
          {gptq{column_order::natural, scale_choice::given}, coordinate_descent{}}};
}

}  // namespace

TEMPLATE_TEST_CASE("a chain stores the same bytes and reports the same for any executor", "", nvfp4, mxfp4,
                   fp8_e4m3_block, int4_g32_asym) {
  problem const p(300, 160, 400, 21);
  auto const source = correlated(400, 160, 31);
  auto const cross = gram(source, correlated(400, 160, 32));
  auto context = p.both_sided();
  context.cross_gram = cross.view();
  for (auto const& stages : chains()) {
    auto const alone = run<TestType>(p, context, stages, any(serial_executor{}));
    auto const expected = bytes_of(alone.quantized);
    auto const check = [&](any_executor const& executor, std::string_view what) {
      auto const other = run<TestType>(p, context, stages, executor);
      require_equal(bytes_of(other.quantized), expected, what);
      for (std::size_t i = 0; i < stages.size(); ++i) {
        INFO(what << ", stage " << i);
        REQUIRE(other.report.stages[i].after == alone.report.stages[i].after);
        REQUIRE(other.report.stages[i].changed == alone.report.stages[i].changed);
        REQUIRE(other.report.stages[i].rows_kept == alone.report.stages[i].rows_kept);
      }
    };
    check(any(thread_executor(1)), "1 thread");
    check(any(thread_executor(2)), "2 threads");
    check(any(thread_executor(7)), "7 threads");
    check(any(reordering_executor{0}), "backwards");
    check(any(reordering_executor{5}), "shuffled");
  }
}

TEST_CASE("without output Gram, a row's bytes do not depend on the rows around it") {
  problem p(150, 128, 300, 22);
  auto context = p.one_sided();
  context.global_scale = shared_global_scale<scale_sweep, nvfp4>(block_amax(p.weights.view()));
  std::vector<stage> const stages = {gptq{}, coordinate_descent{}};
  auto const decoded = [&](std::size_t first, std::size_t count) {
    auto const result =
        solve<nvfp4>(p.weights.view().part(first, 0, count, 128), context, std::span<stage const>(stages), linalg);
    std::vector<float> values(count * 128);
    decode<nvfp4>(result.quantized.view(), view(std::span<float>(values), count, 128));
    return values;
  };
  auto const together = decoded(0, 150);
  for (std::size_t const first : {0, 1, 47, 100, 149}) {
    auto const some = decoded(first, 150 - first);
    REQUIRE(std::equal(some.begin(), some.end(), together.begin() + static_cast<std::ptrdiff_t>(first * 128)));
  }
}

TEMPLATE_TEST_CASE("the loss of a chain is the same on every instruction set but for 1e-4", "", nvfp4, mxfp4,
                   mxfp8_e4m3, fp8_e4m3_channel, int4_g128) {
  problem const p(400, 256, 600, 23);
  auto const context = p.both_sided();
  for (std::vector<stage> const& stages :
       {std::vector<stage>{scale_sweep{}, gptq{}}, std::vector<stage>{gptq{}, coordinate_descent{}},
        std::vector<stage>{gptq{}, coordinate_descent{}, two_sided{.block = 64}}}) {
    auto const loss = [&] {
      return run<TestType>(p, context, stages, any(serial_executor{})).report.stages.back().after.value();
    };
    double const expected = on_scalar(loss);
    on_every_isa([&] {
      INFO(TestType::name << ", " << stages.size() << " stages");
      REQUIRE(loss() == Approx(expected).epsilon(1e-4));
    });
  }
}
