#include <cmath>
#include <numeric>
#include <random>

#include "prismaquant/codec/kernels/traits.hpp"
#include "prismaquant/core/fp_environment.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "prismaquant/solver/kernels/select.hpp"
#include "prismaquant/solver/tiles.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace prismaquant;
using test::random_matrix;

namespace {

constexpr float global_scale = 20000.0f;

random_matrix upper_triangle(std::size_t n) {
  random_matrix u(n, n, 5, 0.03f);
  for (std::size_t r = 0; r < n; ++r) {
    for (std::size_t c = 0; c < r; ++c) u.elements[r * n + c] = 0.0f;
    u.elements[r * n + r] = 0.5f + std::abs(u.elements[r * n + r]);
  }
  return u;
}

template <class F>
constexpr std::size_t group_of = detail::in_groups<F> ? F::block_shape::columns : 16;

// Weights [rows, columns], scales of their groups' amax, natural order; what run_tiles gives.
template <class F>
struct problem {
  problem(std::size_t rows, std::size_t columns)
      : weights(rows, columns, 1),
        triangle(upper_triangle(columns)),
        values(rows, columns, 0),
        scales(rows, (columns + group_of<F> - 1) / group_of<F>, 0),
        order(columns) {
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t g = 0; g < scales.columns; ++g) {
        std::size_t const width = std::min(group_of<F>, columns - g * group_of<F>);
        float const amax = block_amax(weights.view().part(r, g * group_of<F>, 1, width));
        scales.elements[r * scales.columns + g] = amax / F::element::max_value;
      }
    }
  }

  template <class Executor>
  void run(bool sweep, Executor const& executor) {
    fp_environment_guard const guard;
    auto const in = [](random_matrix& m) { return view(std::span<float>(m.elements), m.rows, m.columns); };
    detail::triangle_strips const strips(triangle.view(), executor);
    auto const kernels = detail::solver_kernels<F>();
    detail::run_tiles(sweep ? kernels.gptq_sweep : kernels.gptq, strips.view(),
                      {weights.view(), order, in(values), in(scales), group_of<F>, global_scale, sweep}, executor);
  }

  random_matrix weights, triangle, values, scales;
  std::vector<std::size_t> order;
};

template <class F>
double on_grid(double w, double scale) {
  return double{F::element::decode(F::element::encode(static_cast<float>(w / scale)))} * scale;
}

// The textbook loop of one row in float64, under the given scales.
template <class F>
double loss_of_loop(problem<F> const& p, std::size_t row, std::vector<double>* values) {
  std::size_t const n = p.order.size();
  std::vector<double> w(n);
  for (std::size_t c = 0; c < n; ++c) w[c] = double{p.weights.view()(row, p.order[c])};
  double loss = 0;
  for (std::size_t c = 0; c < n; ++c) {
    double const value = on_grid<F>(w[c], double{p.scales.view()(row, p.order[c] / group_of<F>)});
    double const error = (w[c] - value) / double{p.triangle.view()(c, c)};
    loss += error * error;
    for (std::size_t next = c + 1; next < n; ++next) w[next] -= error * double{p.triangle.view()(c, next)};
    if (values != nullptr) (*values)[p.order[c]] = value;
  }
  return loss;
}

// The same loss of given values: errors follow from them, column by column.
template <class F>
double loss_of_values(problem<F> const& p, std::size_t row) {
  std::size_t const n = p.order.size();
  std::vector<double> w(n);
  for (std::size_t c = 0; c < n; ++c) w[c] = double{p.weights.view()(row, p.order[c])};
  double loss = 0;
  for (std::size_t c = 0; c < n; ++c) {
    double const error = (w[c] - double{p.values.view()(row, p.order[c])}) / double{p.triangle.view()(c, c)};
    loss += error * error;
    for (std::size_t next = c + 1; next < n; ++next) w[next] -= error * double{p.triangle.view()(c, next)};
  }
  return loss;
}

template <class F>
void agrees_with_loop(problem<F> const& p) {
  double loss = 0, reference = 0;
  std::size_t same = 0;
  std::vector<double> expected(p.order.size());
  for (std::size_t r = 0; r < p.weights.rows; ++r) {
    reference += loss_of_loop(p, r, &expected);
    loss += loss_of_values(p, r);
    for (std::size_t c = 0; c < expected.size(); ++c) {
      same += std::abs(double{p.values.view()(r, c)} - expected[c]) <= 1e-5 * std::abs(expected[c]) ? 1u : 0u;
    }
  }
  REQUIRE(loss == Approx(reference).epsilon(1e-4).margin(1e-9));  // a lone column is met exactly
  REQUIRE(static_cast<double>(same) >= 0.99 * static_cast<double>(p.values.elements.size()));
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("the tile kernel gives the loss and the codes of the textbook loop, for every format", "",
                        format_list) {
  if (detail::solver_kernels<TestType>().gptq == nullptr) return;  // no kernels here, no scales, or zero points
  for (std::size_t columns : {std::size_t{1}, std::size_t{15}, std::size_t{128}, std::size_t{200}}) {
    if (columns % group_of<TestType> != 0 && detail::in_groups<TestType>) continue;
    problem<TestType> p(301, columns);
    p.run(false, serial_executor{});
    agrees_with_loop(p);
  }
}

TEST_CASE("columns are taken in any order") {
  if (detail::solver_kernels<nvfp4>().gptq == nullptr) return;
  problem<nvfp4> p(50, 128);
  std::shuffle(p.order.begin(), p.order.end(), std::mt19937(3));
  p.run(false, serial_executor{});
  agrees_with_loop(p);
}

TEMPLATE_TEST_CASE("scales chosen in the loop are the best of all that the format has in its window", "", nvfp4, mxfp4,
                   mxfp6_e2m3, mxfp8_e4m3) {
  using F = TestType;
  if (detail::solver_kernels<F>().gptq_sweep == nullptr) return;
  problem<F> p(53, group_of<F>);  // one group: the loss of the row is that of the choice
  p.run(true, serial_executor{});
  for (std::size_t r = 0; r < p.weights.rows; ++r) {
    auto tried = p;
    double best = std::numeric_limits<double>::infinity();
    auto const window =
        F::scale::sweep(block_amax(p.weights.view().part(r, 0, 1, group_of<F>)), F::element::max_value, global_scale);
    for (int code = window.first; code <= window.last; ++code) {
      tried.scales.elements[r] = F::scale::decode(static_cast<typename F::scale::code_type>(code), global_scale);
      best = std::min(best, loss_of_loop(tried, r, nullptr));
    }
    REQUIRE(loss_of_values(p, r) == Approx(best).epsilon(1e-4));
    REQUIRE(loss_of_loop(p, r, nullptr) == Approx(best).epsilon(1e-4));
  }
}

TEST_CASE("scales chosen in the loop beat those of the largest magnitude on nearly every row") {
  if (detail::solver_kernels<nvfp4>().gptq_sweep == nullptr) return;
  problem<nvfp4> given(200, 256), chosen(200, 256);
  given.run(false, serial_executor{});
  chosen.run(true, serial_executor{});
  std::size_t better = 0;
  for (std::size_t r = 0; r < 200; ++r) better += loss_of_values(chosen, r) <= loss_of_values(given, r) ? 1u : 0u;
  REQUIRE(better >= 190);
}

TEST_CASE("bytes do not depend on the number of threads, nor on the rows that share a tile") {
  if (detail::solver_kernels<nvfp4>().gptq_sweep == nullptr) return;
  for (bool sweep : {false, true}) {
    problem<nvfp4> alone(150, 128);
    alone.run(sweep, serial_executor{});
    for (std::size_t threads : {2, 7}) {
      problem<nvfp4> together(150, 128);
      together.run(sweep, thread_executor(threads));
      REQUIRE(together.values.elements == alone.values.elements);
      REQUIRE(together.scales.elements == alone.scales.elements);
    }
    problem<nvfp4> backwards(150, 128);
    for (std::size_t r = 0; r < 75; ++r) {
      std::swap_ranges(&backwards.weights.elements[r * 128], &backwards.weights.elements[r * 128] + 128,
                       &backwards.weights.elements[(149 - r) * 128]);
      std::swap_ranges(&backwards.scales.elements[r * 8], &backwards.scales.elements[r * 8] + 8,
                       &backwards.scales.elements[(149 - r) * 8]);
    }
    backwards.run(sweep, serial_executor{});
    for (std::size_t r = 0; r < 150; ++r) {
      for (std::size_t c = 0; c < 128; ++c) {
        REQUIRE(backwards.values.view()(149 - r, c) == alone.values.view()(r, c));
      }
    }
  }
}
