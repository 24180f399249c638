// GPTQ against a plain loop in float64, and its scales against every scale that a group can have.
#include "prismaquant/formats/format_list.hpp"
#include "solver/reference_gptq.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

template <class F>
solution<F> run(problem const& p, std::vector<stage> const& stages, lapack_backend const& linalg = eigen_backend{}) {
  auto context = p.one_sided();
  context.global_scale = shared_global_scale<scale_sweep, F>(block_amax(p.weights.view()));
  return solve<F>(p.weights.view(), context, std::span<stage const>(stages), linalg);
}

template <class F>
constexpr bool sweeps = detail::in_groups<F>&& sweep_rule::swept<F>;

// Whether the window of the format's data-free sweep around `amax` has `code`.
template <class F>
bool in_window(int code, float amax, float global_scale) {
  auto const window = F::scale::sweep(amax, F::element::max_value, global_scale);
  return code >= int{window.first} && code <= int{window.last};
}

// Without the Gram of the outputs, which takes most of the time to make.
problem many_rows(std::size_t rows, std::size_t columns, unsigned seed) {
  problem p(1, columns, 400, seed);
  p.weights = random_matrix(rows, columns, seed);
  return p;
}

struct agreement {
  double loss = 0, reference = 0, same = 0, values = 0;

  void add(std::vector<double> const& found, std::vector<double> const& expected, float const* weights,
           square_matrix const& h) {
    std::vector<double> d(h.n), e(h.n);
    for (std::size_t c = 0; c < h.n; ++c) {
      d[c] = found[c] - double{weights[c]};
      e[c] = expected[c] - double{weights[c]};
      same += std::abs(found[c] - expected[c]) <= 1e-5 * std::abs(expected[c]) ? 1.0 : 0.0;
    }
    values += static_cast<double>(h.n);
    loss += quadratic(d.data(), h);
    reference += quadratic(e.data(), h);
  }
};

// What `stages` (GPTQ and what it starts from) store, row by row, against `expected(weights of the row, row)`.
template <class F, class Expected>
agreement compare(problem const& p, solution<F> const& result, square_matrix const& h, Expected&& expected) {
  agreement all;
  auto const d = deviations(p.weights, result.quantized);
  for (std::size_t r = 0; r < p.weights.rows; ++r) {
    float const* const weights = p.weights.elements.data() + r * h.n;
    std::vector<double> found(h.n);
    for (std::size_t c = 0; c < h.n; ++c) found[c] = d[r * h.n + c] + double{weights[c]};
    all.add(found, expected(weights, r), weights, h);
  }
  return all;
}

void require_agreement(agreement const& a) {
  REQUIRE(a.loss == Approx(a.reference).epsilon(1e-4));
  REQUIRE(a.same >= 0.99 * a.values);
}

}  // namespace

TEST_CASE("the reference factors the inverse") {
  problem const p(4, 24, 50, 1);
  auto const h = damped(p.h.view(), p.tokens);
  auto const u = upper_factor_of_inverse(h);
  for (std::size_t i = 0; i < h.n; ++i) {
    for (std::size_t j = 0; j < h.n; ++j) {  // u h u' = 1
      double sum = 0;
      for (std::size_t k = 0; k < h.n; ++k) {
        for (std::size_t l = 0; l < h.n; ++l) sum += u(i, k) * h(k, l) * u(j, l);
      }
      REQUIRE(sum == Approx(i == j ? 1.0 : 0.0).margin(1e-9));
      if (i > j) REQUIRE(u(i, j) == 0.0);
    }
  }
}

TEMPLATE_LIST_TEST_CASE("GPTQ under given scales gives the loss and the codes of the float64 loop, in every order", "",
                        format_list) {
  using F = TestType;
  if constexpr (has_gram_solvers<F>) {
    // Sums in float32 round some weights to the other side, which moves the loss of their rows: many rows even it out.
    std::size_t const columns = F::ragged_blocks ? 50 : std::max<std::size_t>(64, F::block_shape::columns);
    problem const p = many_rows(4000, columns, 3);
    auto const h = damped(p.h.view(), p.tokens);
    auto const swept = run<F>(p, {scale_sweep{}});
    stored_scales<F> const scales(swept.quantized);
    auto const rounded = row_objectives(deviations(p.weights, swept.quantized), h);
    std::size_t const group = F::block_shape::columns != 0 ? F::block_shape::columns : columns;
    for (auto const order : {column_order::natural, column_order::activation, column_order::group_activation}) {
      auto const columns_in_order = detail::ordered_columns(order, p.h.view(), group);
      auto const u = upper_factor_of_inverse(reordered(h, columns_in_order));
      for (auto const& [name, linalg] : backends()) {
        INFO("order " << static_cast<int>(order) << ", " << name);
        auto const result = run<F>(p, {gptq{order, scale_choice::given}}, linalg);
        auto const agreed = compare<F>(p, result, h, [&](float const* weights, std::size_t r) {
          auto values = gptq_row<F>(weights, u, columns_in_order, scales, r);
          std::vector<double> d(values);
          for (std::size_t c = 0; c < columns; ++c) d[c] -= double{weights[c]};
          if (quadratic(d.data(), h) <= rounded[r]) return values;
          for (std::size_t c = 0; c < columns; ++c) {  // a chain keeps the better row
            auto const grid = scales(r, c);
            values[c] = on_grid<F>(double{weights[c]}, double{grid.scale}, double{grid.zero});
          }
          return values;
        });
        require_agreement(agreed);
        REQUIRE(agreed.loss < 0.95 * total(rounded));  // the test is of GPTQ, not of what a chain starts from
      }
    }
  }
}

TEMPLATE_LIST_TEST_CASE("GPTQ that chooses scales in the loop gives the loss and the codes of the float64 loop", "",
                        format_list) {
  using F = TestType;
  if constexpr (sweeps<F>) {
    problem const p = many_rows(2000, 64, 4);
    auto const h = damped(p.h.view(), p.tokens);
    for (auto const order : {column_order::natural, column_order::group_activation}) {
      auto const columns_in_order = detail::ordered_columns(order, p.h.view(), F::block_shape::columns);
      auto const u = upper_factor_of_inverse(reordered(h, columns_in_order));
      for (auto const& [name, linalg] : backends()) {
        INFO("order " << static_cast<int>(order) << ", " << name);
        auto const result = run<F>(p, {gptq{order, scale_choice::in_loop}}, linalg);
        float const global_scale = result.quantized.global_scale();
        require_agreement(compare<F>(p, result, h, [&](float const* weights, std::size_t) {
          return gptq_sweep_row<F>(weights, u, columns_in_order, global_scale,
                                   [&](int code, float amax) { return in_window<F>(code, amax, global_scale); });
        }));
      }
    }
  }
}

TEMPLATE_TEST_CASE("scales chosen in the loop are the best of their window, and next to the best of all", "", nvfp4,
                   mxfp4, mxfp6_e2m3, mxfp6_e3m2, mxfp8_e4m3, mxfp8_e5m2, mxint8) {
  using F = TestType;
  constexpr std::size_t group = F::block_shape::columns, rows = 300;
  problem const p(rows, group, 400, 5);  // one group: the loss of the loop is the objective of the row
  auto const h = damped(p.h.view(), p.tokens);
  auto const order = detail::ordered_columns(column_order::group_activation, p.h.view(), group);
  auto const u = upper_factor_of_inverse(reordered(h, order));
  auto const result = run<F>(p, {gptq{}});
  float const global_scale = result.quantized.global_scale();
  auto const found = row_objectives(deviations(p.weights, result.quantized), h);
  std::size_t equal = 0;
  double sum = 0, least = 0, worst = 1;
  for (std::size_t r = 0; r < rows; ++r) {
    float const* const weights = p.weights.elements.data() + r * group;
    auto const best = [&](auto&& tried) {
      auto values = gptq_sweep_row<F>(weights, u, order, global_scale, tried);
      for (std::size_t c = 0; c < group; ++c) values[c] -= double{weights[c]};
      return quadratic(values.data(), h);
    };
    double const of_window = best([&](int code, float amax) { return in_window<F>(code, amax, global_scale); });
    double const of_all = best([](int, float) { return true; });
    REQUIRE(found[r] == Approx(of_window).epsilon(1e-4));
    equal += found[r] <= of_all * (1 + 1e-4) ? 1u : 0u;
    worst = std::max(worst, found[r] / of_all);
    sum += found[r];
    least += of_all;
  }
  WARN(F::name << ": " << equal << " of " << rows << " groups have the best of all scales; all together " << sum / least
               << " of the least loss, the worst " << worst);
  REQUIRE(sum <= 1.02 * least);
}

TEST_CASE("NVFP4 scales chosen in the loop beat those of the least squared error on 95 % of rows, in the same order") {
  problem const p(400, 256, 2048, 6);
  auto const h = damped(p.h.view(), p.tokens);
  auto const objectives = [&](scale_choice scales) {
    auto const result = run<nvfp4>(p, {gptq{column_order::group_activation, scales}});
    return row_objectives(deviations(p.weights, result.quantized), h);
  };
  auto const chosen = objectives(scale_choice::in_loop), given = objectives(scale_choice::given);
  std::size_t better = 0;
  for (std::size_t r = 0; r < p.weights.rows; ++r) better += chosen[r] <= given[r] ? 1u : 0u;
  WARN(better << " of " << p.weights.rows << " rows, all together " << total(chosen) / total(given));
  REQUIRE(better >= p.weights.rows * 95 / 100);
}
