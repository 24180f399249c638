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

  /// How far `measure` may be off for unit `u` with `values`: what products in float32 sum can be far larger than the
  /// sum, and they round by that.
  double uncertainty(working_state const& state, dense_matrix const& values, std::size_t u) const {
    constexpr double rounding = 16.0 * 0x1p-24;
    std::size_t const n = values.columns(), first = u * unit_rows(),
                      last = std::min(first + unit_rows(), values.rows());
    double sum = 0.0;
    for (std::size_t r = first; r < last; ++r) {
      double row = 0.0;
      for (std::size_t c = 0; c < n; ++c) {
        double const d = double{values.row(r)[c]} - double{state.target.row(r)[c]};
        row += d * d * (h_.view().columns == 0 ? weight_of(r, c) : double{h_.view()(c, c)});
      }
      sum += is_separate() ? row : row * double{g_.part(u)(r - first, r - first)};
    }
    return rounding * std::sqrt(static_cast<double>(n + last - first)) * sum;
  }

  /// By how much unit `u` of `state` is better than `before` (values then; the target is the same): exact but for
  /// float64 rounding, in time for the columns that changed.
  template <executor Executor>
  double gain(working_state const& state, dense_matrix const& before, std::size_t u, Executor& executor) const {
    std::size_t const n = state.target.columns(), first = u * unit_rows();
    std::size_t const rows = std::min(unit_rows(), state.target.rows() - first);
    std::vector<double> differences(n);  // tr((D1 - D0)' G (D1 + D0) H), column by column
    executor.for_ranges(n, [&](std::size_t begin, std::size_t end) {
      std::vector<double> slopes(rows);
      for (std::size_t c = begin; c < end; ++c) {
        auto const step = [&](std::size_t r) {
          return double{state.values.row(first + r)[c]} - double{before.row(first + r)[c]};
        };
        bool changed = false;
        for (std::size_t r = 0; r < rows; ++r) changed = changed || step(r) != 0.0;
        if (!changed) continue;
        for (std::size_t r = 0; r < rows; ++r) slopes[r] = slope(state, before, first + r, c);
        for (std::size_t r = 0; r < rows; ++r) {
          if (step(r) == 0.0) continue;
          double mixed = is_separate() ? slopes[r] : 0.0;
          for (std::size_t q = 0; q < rows && !is_separate(); ++q) mixed += double{g_.part(u)(r, q)} * slopes[q];
          differences[c] += step(r) * mixed;
        }
      }
    });
    double sum = 0.0;
    for (double const difference : differences) sum += difference;
    return -sum;
  }

 private:
  double weight_of(std::size_t r, std::size_t c) const {
    return importance_.data != nullptr ? double{importance_(r, c)} : 1.0;
  }

  /// Element `c` of (d1 + d0) H of row `r`, in float64 from the values.
  double slope(working_state const& state, dense_matrix const& before, std::size_t r, std::size_t c) const {
    float const *const now = state.values.row(r), *const then = before.row(r), *const target = state.target.row(r);
    auto const both = [&](std::size_t j) { return double{now[j]} + double{then[j]} - 2.0 * double{target[j]}; };
    if (h_.view().columns == 0) return weight_of(r, c) * both(c);
    double sum = 0.0;
    for (std::size_t j = 0; j < state.target.columns(); ++j) sum += double{h_.view()(c, j)} * both(j);
    return sum;
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
