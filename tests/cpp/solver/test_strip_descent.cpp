#include <cmath>

#include "prismaquant/core/fp_environment.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "prismaquant/linalg/eigen_backend.hpp"
#include "prismaquant/solver/coordinate_descent.hpp"
#include "prismaquant/solver/scalar_kernels.hpp"
#include "prismaquant/solver/two_sided.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace prismaquant;
using test::random_matrix;

namespace {

constexpr std::size_t group = 16;
eigen_backend const linalg;

// x'x of random inputs and a little more on the diagonal.
random_matrix gram(std::size_t n) {
  random_matrix const x(2 * n + 3, n, 7, 1.0f);
  random_matrix h(n, n, 0, 0.0f);
  for (std::size_t t = 0; t < x.rows; ++t) {
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) h.elements[i * n + j] += x.view()(t, i) * x.view()(t, j);
    }
  }
  for (std::size_t i = 0; i < n; ++i) h.elements[i * n + i] += 0.1f;
  return h;
}

detail::dense_matrix dense(random_matrix const& m) {
  detail::dense_matrix result(m.rows, m.columns);
  for (std::size_t r = 0; r < m.rows; ++r) std::copy_n(&m.elements[r * m.columns], m.columns, result.row(r));
  return result;
}

// Random weights rounded to nearest under scales of their groups' amax, to be improved.
template <class F>
struct problem {
  problem(std::size_t rows, std::size_t columns) : target(rows, columns, 1), h(gram(columns)), damped(dense(h), 0.0) {
    state.group = group;
    state.target = state.values = dense(target);
    state.scales = detail::dense_matrix(rows, (columns + group - 1) / group);
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t g = 0; g < state.scales.columns(); ++g) {
        std::size_t const width = std::min(group, columns - g * group);
        state.scales.row(r)[g] = block_amax(target.view().part(r, g * group, 1, width)) / F::element::max_value;
      }
      for (std::size_t c = 0; c < columns; ++c) {
        state.values.row(r)[c] = nearest(target.view()(r, c), scale_of(r, c));
      }
    }
  }
  float scale_of(std::size_t r, std::size_t c) const { return state.scales.row(r)[c / group]; }
  float value(std::size_t r, std::size_t c) const { return state.values.row(r)[c]; }
  static float nearest(float w, float scale) { return F::element::decode(F::element::encode(w / scale)) * scale; }

  template <class Executor>
  stage_report run(coordinate_descent const& options, Executor const& executor,
                   format_solver_kernels const& kernels = detail::solver_kernels<F>()) {
    fp_environment_guard const guard;
    stage_report report;
    detail::run_coordinate_descent(options, damped, state, kernels, report, linalg, executor);
    return report;
  }

  std::vector<double> slope(std::size_t r) const {  // d h
    std::size_t const n = h.columns;
    std::vector<double> p(n);
    for (std::size_t i = 0; i < n; ++i) {
      double const d = double{value(r, i)} - double{target.view()(r, i)};
      for (std::size_t j = 0; j < n; ++j) p[j] += d * double{h.view()(i, j)};
    }
    return p;
  }
  double objective(std::size_t r) const {
    auto const p = slope(r);
    double sum = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
      sum += p[i] * (double{value(r, i)} - double{target.view()(r, i)});
    }
    return sum;
  }

  random_matrix target, h;
  detail::damped_gram damped;
  detail::working_state state;
};

}  // namespace

TEMPLATE_LIST_TEST_CASE("each sweep of coordinate descent lowers the objective of every row, until no change helps", "",
                        format_list) {
  if (detail::solver_kernels<TestType>().descent == nullptr) return;  // no kernels here, no scales, or zero points
  for (std::size_t columns : {std::size_t{1}, std::size_t{20}, std::size_t{300}}) {
    problem<TestType> p(50, columns);
    std::vector<double> before(50);
    double largest = 0;
    for (std::size_t r = 0; r < 50; ++r) largest = std::max(largest, before[r] = p.objective(r));
    std::size_t changes = 1;
    for (int sweep = 0; changes != 0 && sweep < 100; ++sweep) {
      auto const start = p.state.values;
      changes = p.run({.sweeps = 1, .refit_scales = false}, serial_executor{}).changed;
      std::size_t different = 0;
      for (std::size_t r = 0; r < 50; ++r) {
        for (std::size_t c = 0; c < columns; ++c) different += start.row(r)[c] != p.value(r, c) ? 1u : 0u;
      }
      REQUIRE(different == changes);
      for (std::size_t r = 0; r < 50; ++r) {
        double const now = p.objective(r);
        REQUIRE(now <= before[r] + 1e-5 * largest);
        before[r] = now;
      }
    }
    REQUIRE(changes == 0);
    for (std::size_t r = 0; r < 50; ++r) {  // now no single change helps
      auto const slope = p.slope(r);
      for (std::size_t c = 0; c < columns; ++c) {
        float const value = p.value(r, c);
        REQUIRE(double{p.state.slopes.row(r)[c]} == Approx(slope[c]).margin(1e-3 * largest));  // were kept up to date
        double const curvature = double{p.h.view()(c, c)};
        auto const unconstrained = static_cast<float>(double{value} - slope[c] / curvature);
        double const step = double{p.nearest(unconstrained, p.scale_of(r, c))} - double{value};
        REQUIRE(step * (2 * slope[c] + curvature * step) >= -1e-5 * largest);
      }
    }
  }
}

TEST_CASE("descent takes a quarter and more off the objective of NVFP4 rounded to nearest") {
  if (detail::solver_kernels<nvfp4>().descent == nullptr) return;
  for (bool refit : {false, true}) {
    problem<nvfp4> p(96, 128);
    double before = 0, after = 0;
    for (std::size_t r = 0; r < 96; ++r) before += p.objective(r);
    auto const done = p.run({.sweeps = 20, .refit_scales = refit}, serial_executor{});
    for (std::size_t r = 0; r < 96; ++r) after += p.objective(r);
    REQUIRE(after < 0.75 * before);
    REQUIRE(done.passes > 2);
  }
}

TEMPLATE_LIST_TEST_CASE("refitted scales lower the objective further, and values stay on their grid", "", format_list) {
  auto const kernels = detail::solver_kernels<TestType>();
  if constexpr (detail::in_groups<TestType>) {
    if (kernels.descent_refit == nullptr || TestType::block_shape::columns > group) return;
    problem<TestType> p(50, 160), q(50, 160);
    auto const start = p.state.scales;
    p.run({.sweeps = 1, .refit_scales = false}, serial_executor{});
    q.run({.sweeps = 1}, serial_executor{});
    double without = 0, with = 0;
    std::size_t moved = 0;
    for (std::size_t r = 0; r < 50; ++r) {
      without += p.objective(r);
      with += q.objective(r);
      for (std::size_t g = 0; g < 10; ++g) moved += start.row(r)[g] != q.state.scales.row(r)[g] ? 1u : 0u;
      for (std::size_t c = 0; c < 160; ++c) REQUIRE(q.nearest(q.value(r, c), q.scale_of(r, c)) == q.value(r, c));
    }
    REQUIRE(moved > 20);
    REQUIRE(with < without);
  }
}

TEMPLATE_LIST_TEST_CASE("kernels do what the plain ones do", "", format_list) {
  if constexpr (has_scales<TestType>) {
    auto const plain_kernels = detail::scalar_solver_kernels<TestType>();
    if (detail::solver_kernels<TestType>().descent == nullptr || plain_kernels.descent == nullptr) return;
    problem<TestType> a(40, 200), b(40, 200);
    auto const options = coordinate_descent{.sweeps = 3, .refit_scales = TestType::block_shape::columns == group};
    a.run(options, serial_executor{});
    b.run(options, serial_executor{}, plain_kernels);
    double ours = 0, plain = 0;
    for (std::size_t r = 0; r < 40; ++r) {
      ours += a.objective(r);
      plain += b.objective(r);
    }
    REQUIRE(ours == Approx(plain).epsilon(0.01));  // near ties may fall either way, and later columns follow
  }
}

TEST_CASE("descent gives the same bytes for any number of threads") {
  if (detail::solver_kernels<nvfp4>().descent == nullptr) return;
  problem<nvfp4> alone(300, 144);
  auto const done = alone.run({}, serial_executor{});
  for (std::size_t threads : {2, 7}) {
    problem<nvfp4> together(300, 144);
    auto const same = together.run({}, thread_executor(threads));
    for (std::size_t r = 0; r < 300; ++r) {
      for (std::size_t c = 0; c < 144; ++c) REQUIRE(together.value(r, c) == alone.value(r, c));
    }
    REQUIRE(same.changed == done.changed);
    REQUIRE(same.passes == done.passes);
  }
}
