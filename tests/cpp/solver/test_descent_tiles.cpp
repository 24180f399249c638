#include <cmath>
#include <numeric>

#include "prismaquant/core/fp_environment.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "prismaquant/solver/descent_tiles.hpp"
#include "prismaquant/solver/kernels/select.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace prismaquant;
using test::random_matrix;

namespace {

constexpr std::size_t group = 16;

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

// Random weights rounded to nearest under scales of their groups' amax, to be improved.
template <class F>
struct problem {
  problem(std::size_t rows, std::size_t columns)
      : target(rows, columns, 1),
        values(target),
        scales(rows, (columns + group - 1) / group, 0),
        h(gram(columns)),
        order(columns) {
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t g = 0; g < scales.columns; ++g) {
        std::size_t const width = std::min(group, columns - g * group);
        scales.elements[r * scales.columns + g] =
            block_amax(target.view().part(r, g * group, 1, width)) / F::element::max_value;
      }
      for (std::size_t c = 0; c < columns; ++c) {
        values.elements[r * columns + c] = nearest(target.view()(r, c), scale_of(r, c));
      }
    }
  }
  float scale_of(std::size_t r, std::size_t c) const { return scales.view()(r, c / group); }
  static float nearest(float w, float scale) { return F::element::decode(F::element::encode(w / scale)) * scale; }

  template <class Executor>
  detail::descent_result run(std::size_t sweeps, Executor const& executor) {
    fp_environment_guard const guard;
    auto const in = [](random_matrix& m) { return view(std::span<float>(m.elements), m.rows, m.columns); };
    detail::square_strips const strips(h.view(), executor);
    return detail::run_descent(detail::solver_kernels<F>().descent, strips.view(),
                               {target.view(), order, in(values), in(scales), group, 1.0f, false}, sweeps, executor);
  }

  std::vector<double> slope(std::size_t r) const {  // d h
    std::size_t const n = order.size();
    std::vector<double> p(n);
    for (std::size_t i = 0; i < n; ++i) {
      double const d = double{values.view()(r, i)} - double{target.view()(r, i)};
      for (std::size_t j = 0; j < n; ++j) p[j] += d * double{h.view()(i, j)};
    }
    return p;
  }
  double objective(std::size_t r) const {
    auto const p = slope(r);
    double sum = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
      sum += p[i] * (double{values.view()(r, i)} - double{target.view()(r, i)});
    }
    return sum;
  }

  random_matrix target, values, scales, h;
  std::vector<std::size_t> order;
};

}  // namespace

TEMPLATE_LIST_TEST_CASE("each sweep of coordinate descent lowers the objective of every row, until no change helps", "",
                        format_list) {
  if (detail::solver_kernels<TestType>().descent == nullptr) return;  // no kernels here, no scales, or zero points
  for (std::size_t columns : {std::size_t{1}, std::size_t{20}, std::size_t{64}}) {
    problem<TestType> p(50, columns);
    std::vector<double> before(50);
    double largest = 0;
    for (std::size_t r = 0; r < 50; ++r) largest = std::max(largest, before[r] = p.objective(r));
    std::size_t changes = 1;
    for (int sweep = 0; changes != 0 && sweep < 100; ++sweep) {
      auto const start = p.values.elements;
      changes = p.run(1, serial_executor{}).changes;
      std::size_t different = 0;
      for (std::size_t i = 0; i < start.size(); ++i) different += start[i] != p.values.elements[i] ? 1u : 0u;
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
        float const value = p.values.view()(r, c);
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
  problem<nvfp4> p(96, 128);
  double before = 0, after = 0;
  for (std::size_t r = 0; r < 96; ++r) before += p.objective(r);
  auto const done = p.run(20, serial_executor{});
  for (std::size_t r = 0; r < 96; ++r) after += p.objective(r);
  REQUIRE(after < 0.75 * before);
  REQUIRE(done.sweeps > 2);
}

TEST_CASE("descent gives the same bytes for any number of threads") {
  if (detail::solver_kernels<nvfp4>().descent == nullptr) return;
  problem<nvfp4> alone(150, 64);
  auto const done = alone.run(5, serial_executor{});
  for (std::size_t threads : {2, 7}) {
    problem<nvfp4> together(150, 64);
    auto const same = together.run(5, thread_executor(threads));
    REQUIRE(together.values.elements == alone.values.elements);
    REQUIRE(same.changes == done.changes);
    REQUIRE(same.sweeps == done.sweeps);
  }
}
