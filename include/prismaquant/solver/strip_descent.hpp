/// @file
/// Brings rows of a matrix to the kernels of coordinate descent, strip of columns by strip.
#pragma once

#include <algorithm>
#include <utility>

#include "prismaquant/solver/aligned_floats.hpp"
#include "prismaquant/solver/dense_matrix.hpp"
#include "prismaquant/solver/kernels/table.hpp"
#include "prismaquant/solver/products.hpp"

namespace prismaquant::detail {

/// Rows `first` .. `first` + count - 1 of a state.
struct descent_rows {
  std::size_t first, count;
  matrix_view<float const> g = {};  ///< [count, count] couples them; empty: it does not
};

/// One strip of columns of some rows: lets the kernel change it, and brings the slopes of all columns up to date.
class strip_descent {
 public:
  static constexpr std::size_t panel_rows = 32;  ///< coupled rows between two products with G

  explicit strip_descent(std::size_t rows)
      : h_(strip_columns * strip_columns),
        slopes_(rows, strip_columns),
        steps_(rows, strip_columns),
        pushes_(panel_rows, strip_columns) {}

  /// `state.slopes` must be known. Returns how many values and scales changed.
  template <linalg_backend Linalg, executor Executor>
  std::size_t run(std::size_t column, descent_rows const& rows, std::size_t sweeps, matrix_view<float const> h,
                  working_state& state, strip_kernel* kernel, spread_kernel* spread, Linalg const& linalg,
                  Executor& executor) {
    std::size_t const used = std::min(strip_columns, h.columns - column);
    gather_h(h, column, used);
    load_slopes(column, rows, used, state, linalg, executor);
    bool const coupled = rows.g.data != nullptr;
    std::size_t changes = 0;
    for (std::size_t top = 0; top < rows.count; top += panel_rows) {
      std::size_t const count = std::min(panel_rows, rows.count - top), rest = rows.count - top - count;
      std::size_t const changed = kernel(panel(column, rows, top, count, used, sweeps, state));
      changes += changed;
      if (!coupled || changed == 0 || rest == 0) continue;
      add_product(1.0f, rows.g.part(top + count, top, rest, count),
                  std::as_const(pushes_).view().part(0, 0, count, used),
                  slopes_.view().part(top + count, 0, rest, used), linalg, executor);
    }
    if (changes != 0) {
      for_pieces(rows.count, executor, [&](std::size_t first, std::size_t count) {
        spread({steps_.row(first), count, &h(column, 0), state.slopes.stride(), state.slopes.row(rows.first + first)});
      });
    }
    return changes;
  }

 private:
  void gather_h(matrix_view<float const> h, std::size_t column, std::size_t used) {
    for (std::size_t r = 0; r < strip_columns; ++r) {
      for (std::size_t c = 0; c < strip_columns; ++c) {
        float const padding = r == c ? 1.0f : 0.0f;
        h_[r * strip_columns + c] = std::max(r, c) < used ? h(column + r, column + c) : padding;
      }
    }
  }

  /// G slopes, of the strip.
  template <class Linalg, class Executor>
  void load_slopes(std::size_t column, descent_rows const& rows, std::size_t used, working_state const& state,
                   Linalg const& linalg, Executor& executor) {
    bool const coupled = rows.g.data != nullptr;
    for (std::size_t r = 0; r < rows.count; ++r) {
      float* const out = slopes_.row(r);
      std::fill(out, out + strip_columns, 0.0f);
      std::fill_n(steps_.row(r), strip_columns, 0.0f);
      if (!coupled) std::copy_n(state.slopes.row(rows.first + r) + column, used, out);
    }
    if (!coupled) return;
    add_product(1.0f, rows.g, state.slopes.view().part(rows.first, column, rows.count, used),
                slopes_.view().part(0, 0, rows.count, used), linalg, executor);
  }

  strip_panel panel(std::size_t column, descent_rows const& rows, std::size_t top, std::size_t count, std::size_t used,
                    std::size_t sweeps, working_state& state) {
    std::size_t const first = rows.first + top, group = column / state.group;
    bool const coupled = rows.g.data != nullptr;
    return {.h = h_.data(),
            .g = coupled ? &rows.g(top, top) : nullptr,
            .g_stride = rows.g.row_stride,
            .rows = count,
            .columns = (used + 15) / 16 * 16,
            .sweeps = sweeps,
            .slopes = slopes_.row(top),
            .values = state.values.row(first) + column,
            .value_stride = static_cast<std::ptrdiff_t>(state.values.stride()),
            .scales = state.scales.row(first) + group,
            .zeros = state.zeros.rows() != 0 ? state.zeros.row(first) + group : nullptr,
            .scale_stride = static_cast<std::ptrdiff_t>(state.scales.stride()),
            .group = state.group,
            .global_scale = state.global_scale,
            .steps = steps_.row(top),
            .pushes = coupled ? pushes_.row(0) : nullptr};
  }

  aligned_floats h_;
  dense_matrix slopes_, steps_, pushes_;
};

}  // namespace prismaquant::detail
