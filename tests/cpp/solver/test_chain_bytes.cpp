// Chains give the same bytes in whatever way they run, and nearly the same loss on every instruction set.
#include "prismaquant/formats/format_list.hpp"
#include "prismaquant/solver/kernels/library.hpp"
#include "solver/problems.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

eigen_backend const linalg;

// One range for each index, the last one first.
struct backwards_executor {
  template <class Body>
  void for_ranges(std::size_t count, Body&& body) const {
    while (count-- > 0) body(count, count + 1);
  }
};

// A problem of several tiles, blocks and strips, with everything known.
struct full_problem : problem {
  full_problem() : problem(300, 288, 900, 1) {
    cross = h;
    random_matrix const noise(columns(), columns(), 5, 0.5f);
    for (std::size_t i = 0; i < cross.elements.size(); ++i) cross.elements[i] += noise.elements[i];
  }
  std::size_t columns() const { return weights.columns; }
  solve_context known() const {
    auto context = both_sided();
    context.cross_gram = cross.view();
    return context;
  }
  random_matrix cross{1, 1, 0};
};

template <class F>
struct chain_bytes {
  template <class Executor>
  chain_bytes(full_problem const& p, std::string_view preset, Executor const& executor)
      : solved(solve<F>(p.weights.view(), p.known(), preset, linalg, executor)) {}

  bool operator==(chain_bytes const& other) const {
    auto const a = solved.quantized.view(), b = other.solved.quantized.view();
    return same(a.codes, b.codes) && same(a.scales, b.scales) && a.global_scale == b.global_scale &&
           solved.report.stages.back().after == other.solved.report.stages.back().after;
  }
  template <class View>
  static bool same(View a, View b) {
    for (std::size_t r = 0; r < a.rows; ++r) {
      for (std::size_t c = 0; c < a.columns; ++c) {
        if (a(r, c) != b(r, c)) return false;
      }
    }
    return true;
  }
  solution<F> solved;
};

}  // namespace

TEMPLATE_TEST_CASE("the same bytes for any number of threads, whatever comes first", "", nvfp4, mxfp8_e4m3,
                   fp8_e4m3_channel, fp8_e4m3_block, int4_g32_asym) {
  full_problem const p;
  for (char const* preset : {"fast", "best"}) {
    chain_bytes<TestType> const alone(p, preset, serial_executor{});
    for (std::size_t threads : {2, 7}) REQUIRE(chain_bytes<TestType>(p, preset, thread_executor(threads)) == alone);
    REQUIRE(chain_bytes<TestType>(p, preset, backwards_executor{}) == alone);
  }
}

TEMPLATE_TEST_CASE("instruction sets with fused products give the same bytes, the others nearly the same loss", "",
                   nvfp4, mxfp4, fp8_e4m3_channel) {
  full_problem const p;
  std::string const widest = active_kernels().isa;
  for (char const* preset : {"fast", "best"}) {
    chain_bytes<TestType> const expected(p, preset, serial_executor{});
    auto const loss = [](auto const& solved) { return solved.report.stages.back().after.value(); };
    double const one_sided = loss(solve<TestType>(p.weights.view(), p.one_sided(), preset, linalg));
    for (auto const& isa : available_isas()) {
      use_isa(isa);
      CAPTURE(isa, preset);
      REQUIRE(loss(solve<TestType>(p.weights.view(), p.one_sided(), preset, linalg)) ==
              Approx(one_sided).epsilon(1e-4));
      chain_bytes<TestType> const both(p, preset, serial_executor{});
      if (isa == "scalar" || isa == "baseline") {  // one near tie that falls the other way leads to another optimum
        REQUIRE(loss(both.solved) == Approx(loss(expected.solved)).epsilon(2e-3));
      } else {
        REQUIRE(both == expected);
      }
    }
    use_isa(widest);
  }
}
