/// @file
/// What a chain of solvers is measured by.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include "prismaquant/solver/output_gram.hpp"
#include "prismaquant/solver/slopes.hpp"

namespace prismaquant::detail {

/// The objective of a chain, per unit of rows that are accepted together: tr(D' G D H) of each block of G; without G
/// d H d' of each row; without H its squared error, weighted by importance where there is one. D = values - target.
class objective {
 public:
  /// `g` without blocks, `h` without columns: there is none.
  objective(damped_gram const& h, output_blocks const& g, matrix_view<float const> importance)
      : h_(h), g_(g), importance_(importance) {}

  bool is_separate() const noexcept { return g_.count() == 0; }  ///< rows are, each a unit
  std::size_t unit_rows() const noexcept { return g_.count() != 0 ? g_.block() : 1; }

  /// One number per unit, summed in float64 over products in float32.
  template <linalg_backend Linalg, executor Executor>
  std::vector<double> measure(working_state& state, Linalg const& linalg, Executor& executor) const {
    if (h_.view().columns != 0) update_slopes(state, h_, linalg, executor);
    std::size_t const rows = state.target.rows();
    std::vector<double> result((rows + unit_rows() - 1) / unit_rows());
    if (result.size() == 1 && !is_separate()) {
      result[0] = coupled(0, state, linalg, executor);
      return result;
    }
    executor.for_ranges(result.size(), [&](std::size_t begin, std::size_t end) {
      serial_executor const alone;
      for (std::size_t u = begin; u < end; ++u) {
        result[u] = is_separate() ? separate(state, u) : coupled(u, state, linalg, alone);
      }
    });
    return result;
  }

  /// By how much row `r` of `state` is better than `before` (its values then; the target is the same): exact but for
  /// float64 rounding, in time for the columns that changed. Of separate rows only.
  double gain(working_state const& state, std::size_t r, float const* before) const {
    float const *const values = state.values.row(r), *const target = state.target.row(r);
    std::size_t const n = state.target.columns();
    double difference = 0.0;  // sum of (d' - d) H (d' + d)
    for (std::size_t i = 0; i < n; ++i) {
      if (values[i] == before[i]) continue;
      double slope = 0.0;
      auto const add = [&](std::size_t j, double weight) {
        slope += weight * (double{values[j]} + double{before[j]} - 2.0 * double{target[j]});
      };
      if (h_.view().columns == 0) {
        add(i, weight_of(r, i));
      } else {
        for (std::size_t j = 0; j < n; ++j) add(j, double{h_.view()(i, j)});
      }
      difference += (double{values[i]} - double{before[i]}) * slope;
    }
    return -difference;
  }

 private:
  double weight_of(std::size_t r, std::size_t c) const {
    return importance_.data != nullptr ? double{importance_(r, c)} : 1.0;
  }

  double separate(working_state const& state, std::size_t r) const {
    bool const plain = h_.view().columns == 0;
    double sum = 0.0;
    for (std::size_t c = 0; c < state.target.columns(); ++c) {
      double const x = double{state.values.row(r)[c]} - double{state.target.row(r)[c]};
      sum += x * (plain ? weight_of(r, c) * x : double{state.slopes.row(r)[c]});
    }
    return sum;
  }

  /// tr(D' G (D H)), strip by strip of columns.
  template <class Linalg, class Executor>
  double coupled(std::size_t block, working_state const& state, Linalg const& linalg, Executor& executor) const {
    auto const g = g_.part(block);
    std::size_t const first = block * g_.block(), columns = state.target.columns();
    constexpr std::size_t width = 256;
    double sum = 0.0;
    for (std::size_t column = 0; column < columns; column += width) {
      std::size_t const count = std::min(width, columns - column);
      dense_matrix deviations(g.rows, count), mixed(g.rows, count);
      for (std::size_t r = 0; r < g.rows; ++r) {
        float const *const values = state.values.row(first + r) + column, *const target =
                                                                              state.target.row(first + r) + column;
        for (std::size_t c = 0; c < count; ++c) deviations.row(r)[c] = values[c] - target[c];
      }
      add_product(1.0f, g, std::as_const(deviations).view(), mixed.view(), linalg, executor);
      for (std::size_t r = 0; r < g.rows; ++r) {
        float const* const slopes = state.slopes.row(first + r) + column;
        for (std::size_t c = 0; c < count; ++c) sum += double{slopes[c]} * double{mixed.row(r)[c]};
      }
    }
    return sum;
  }

  damped_gram const& h_;
  output_blocks const& g_;
  matrix_view<float const> importance_;
};

}  // namespace prismaquant::detail
