// Chains against every possible result of a row of four columns, and where coordinate descent ends.
#include "linalg/reference.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "solver/problems.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

eigen_backend const linalg;

// Four columns with weights and inputs; what fills up their group has neither.
template <class F>
problem four_columns(std::size_t rows, unsigned seed) {
  constexpr std::size_t group = F::block_shape::columns;
  problem const four(rows, 4, 50, seed);
  problem padded(rows, group, 50, seed);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < group; ++c) {
      padded.weights.elements[r * group + c] = c < 4 ? four.weights.elements[r * 4 + c] : 0.0f;
    }
  }
  for (std::size_t i = 0; i < group; ++i) {
    for (std::size_t j = 0; j < group; ++j) {
      padded.h.elements[i * group + j] = i < 4 && j < 4 ? four.h.elements[i * 4 + j] : 0.0f;
    }
  }
  return padded;
}

// Every value that an element can take under scale 1.
template <class F>
std::vector<double> element_values() {
  std::vector<double> values;
  for (unsigned code = 0; code < 1u << F::element::bits; ++code) {
    double const x = double{F::element::decode(static_cast<typename F::element::code_type>(code))};
    if (std::isfinite(x) && std::find(values.begin(), values.end(), x) == values.end()) values.push_back(x);
  }
  return values;
}

// Every scale that a group can have, of those within a factor of eight of the one of its largest magnitude: a smaller
// one saturates all but nothing, under a larger one everything rounds to at most one step.
template <class F>
std::vector<double> scales_near(double amax, float global_scale) {
  std::vector<double> scales;
  double const usual = amax / double{F::element::max_value};
  for (unsigned code = 1; code < 65536; ++code) {
    if constexpr (sizeof(typename F::scale::code_type) == 1) {
      if (code > unsigned{F::scale::max_code}) break;
    }
    double const s = double{F::scale::decode(static_cast<typename F::scale::code_type>(code), global_scale)};
    if (s >= usual / 8 && s <= usual * 8) scales.push_back(s);
  }
  return scales;
}

// The least d h d' of all values under all scales.
double enumerated(float const* w, square_matrix const& h, std::vector<double> const& values,
                  std::vector<double> const& scales) {
  double least = std::numeric_limits<double>::infinity();
  for (double const s : scales) {
    for (double const v0 : values) {
      double const d0 = v0 * s - double{w[0]};
      for (double const v1 : values) {
        double const d1 = v1 * s - double{w[1]};
        double const two = h(0, 0) * d0 * d0 + 2 * h(0, 1) * d0 * d1 + h(1, 1) * d1 * d1;
        double const s2 = 2 * (h(0, 2) * d0 + h(1, 2) * d1), s3 = 2 * (h(0, 3) * d0 + h(1, 3) * d1);
        for (double const v2 : values) {
          double const d2 = v2 * s - double{w[2]}, three = two + d2 * (s2 + h(2, 2) * d2), t3 = s3 + 2 * h(2, 3) * d2;
          for (double const v3 : values) {
            double const d3 = v3 * s - double{w[3]};
            least = std::min(least, three + d3 * (t3 + h(3, 3) * d3));
          }
        }
      }
    }
  }
  return least;
}

// By how much no change of a single element to any other value under its scale improves; negative: one does. As a share
// of what rounding in float32 can make of the change.
template <class F>
double least_change(problem const& p, quantized_matrix<F> const& q, std::size_t row, square_matrix const& h) {
  auto const all = deviations(p.weights, q);
  double const* const d = all.data() + row * h.n;
  auto const elements = element_values<F>();
  std::size_t const width = F::block_shape::columns != 0 ? F::block_shape::columns : h.n;
  std::size_t const height = F::block_shape::rows != 0 ? F::block_shape::rows : q.rows();
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t c = 0; c < h.n; ++c) {
    detail::block_grid<F> const grid(detail::get_choice<F>(q.view(), row / height, c / width), q.global_scale());
    double slope = 0, size = 0;
    for (std::size_t k = 0; k < h.n; ++k) {
      slope += 2 * h(c, k) * d[k];
      size += 2 * std::abs(h(c, k) * d[k]);
    }
    for (double const x : elements) {
      double const value = (x - double{grid.zero}) * double{grid.scale};
      double const step = value - d[c] - double{p.weights.view()(row, c)};
      if (std::abs(step) <= 1e-6 * std::abs(value)) continue;  // as it is, or rounded otherwise
      least = std::min(least, step * (slope + h(c, c) * step) / (std::abs(step) * size + h(c, c) * step * step));
    }
  }
  return least;
}

}  // namespace

TEMPLATE_TEST_CASE("no chain is below the enumerated optimum of four columns", "", nvfp4, mxfp4, int4_g32) {
  using F = TestType;
  constexpr std::size_t rows = 12, group = F::block_shape::columns;
  problem const p = four_columns<F>(rows, 11);
  auto const h = damped(p.h.view(), p.tokens);
  square_matrix live(4);
  for (std::size_t i = 0; i < 4; ++i) {
    for (std::size_t j = 0; j < 4; ++j) live(i, j) = h(i, j);
  }
  auto context = p.one_sided();
  context.global_scale = shared_global_scale<scale_sweep, F>(block_amax(p.weights.view()));
  auto const elements = element_values<F>();
  std::vector<double> optimum;
  for (std::size_t r = 0; r < rows; ++r) {
    float const* const w = p.weights.elements.data() + r * group;
    optimum.push_back(
        enumerated(w, live, elements,
                   scales_near<F>(double{block_amax(p.weights.view().part(r, 0, 1, group))}, *context.global_scale)));
  }
  std::vector<double> excess;
  std::vector<std::vector<stage>> const chains = {
      {rtn{}}, {scale_sweep{}}, {scale_sweep{}, gptq{}}, {scale_sweep{}, gptq{}, coordinate_descent{}}};
  for (auto const& chain : chains) {
    auto const result = solve<F>(p.weights.view(), context, std::span<stage const>(chain), linalg);
    REQUIRE(result.report.dead_columns == group - 4);
    auto const found = row_objectives(deviations(p.weights, result.quantized), h);
    for (std::size_t r = 0; r < rows; ++r) REQUIRE(found[r] >= optimum[r] * (1 - 1e-6));
    excess.push_back(total(found) / total(optimum) - 1);
  }
  WARN(F::name << ", above the optimum: rtn " << excess[0] << ", scale_sweep " << excess[1] << ", gptq " << excess[2]
               << ", coordinate_descent " << excess[3]);
  for (std::size_t i = 2; i < excess.size(); ++i) REQUIRE(excess[i] <= excess[i - 1]);
}

TEMPLATE_LIST_TEST_CASE("coordinate descent ends only where no change of a single code improves", "", format_list) {
  using F = TestType;
  if constexpr (has_gram_solvers<F>) {
    problem const p(50, F::ragged_blocks ? 70 : F::block_shape::columns * (F::block_shape::columns < 64 ? 3 : 1), 200,
                    12);
    auto const h = damped(p.h.view(), p.tokens);
    for (bool const refit : {false, true}) {
      std::vector<stage> const chain = {scale_sweep{}, coordinate_descent{.sweeps = 200, .refit_scales = refit}};
      auto const result = solve<F>(p.weights.view(), p.one_sided(), std::span<stage const>(chain), linalg);
      INFO("refit " << refit);
      REQUIRE(result.report.stages[1].passes < 200);
      REQUIRE(result.report.stages[1].passes > 1);
      REQUIRE(result.report.stages[1].changed > 0);
      double least = 1;
      for (std::size_t r = 0; r < p.weights.rows; ++r)
        least = std::min(least, least_change<F>(p, result.quantized, r, h));
      REQUIRE(least > -2e-6);
    }
  }
}
