/// @file
/// Coordinate descent on tr(D' G D H), D = values - target: rows are coupled by the Gram G of the output gradients.
#pragma once

#include <atomic>
#include <string_view>

#include "prismaquant/solver/damping.hpp"
#include "prismaquant/solver/kernels/table.hpp"
#include "prismaquant/solver/output_gram.hpp"
#include "prismaquant/solver/products.hpp"
#include "prismaquant/solver/solution.hpp"
#include "prismaquant/solver/tiles.hpp"

namespace prismaquant {

/// Block Gauss-Seidel: a row is solved, as in `coordinate_descent`, for the target that the errors of all other rows
/// leave to it, w_o - sum of G[o, q] / G[o, o] D_q over q != o. Every accepted change lowers the objective. Columns are
/// visited in strips, inside of a strip row after row: then the gradients G D H of a strip are products of matrices.
struct two_sided {
  static constexpr std::string_view name = "two_sided";

  /// Rows that G couples: only those of the same block of so many, or of the caller's blocks if they are smaller. 0:
  /// all up to 4096 rows, else 128; where the caller gave blocks only, those.
  std::size_t block = 0;
  std::size_t passes = 3;
  std::size_t inner_sweeps = 3;  ///< over the strip of a row before the next row
};

namespace detail {

/// Rows `first` .. `first` + g.rows - 1, all of them coupled by `g`.
struct coupled_rows {
  std::size_t first;
  matrix_view<float const> g;
};

/// One strip of columns of some coupled rows: gathers it, runs the kernel panel by panel, writes it back.
class strip_descent {
 public:
  static constexpr std::size_t width = 128, panel_rows = 32;

  strip_descent(std::size_t rows, bool has_zeros)
      : sums_(rows, width),
        slopes_(rows * width),
        h_(width * width),
        values_(panel_rows * width),
        scales_(panel_rows * width),
        zeros_(has_zeros ? panel_rows * width : 0),
        pushes_(panel_rows * width),
        has_zeros_(has_zeros) {}

  template <linalg_backend Linalg, executor Executor>
  std::size_t run(std::size_t column, coupled_rows const& rows, std::size_t inner_sweeps, matrix_view<float const> h,
                  working_state& state, dense_matrix& deviations, panel_kernel* kernel, Linalg const& linalg,
                  Executor& executor) {
    std::size_t const n = rows.g.rows, used = std::min(width, h.columns - column);
    gather_h(h, column, used);
    matrix_view<float> const sums = sums_.view().part(0, 0, n, used);
    matrix_view<float> const all_slopes{slopes_.data(), n, width, width, 1};
    matrix_view<float> const slopes = all_slopes.part(0, 0, n, used);
    std::fill_n(sums_.row(0), n * width, 0.0f);
    std::fill_n(slopes_.data(), n * width, 0.0f);
    add_product(1.0f, std::as_const(deviations).view().part(rows.first, 0, n, h.columns),
                h.part(0, column, h.rows, used), sums, linalg, executor);
    add_product(1.0f, rows.g, sums, slopes, linalg, executor);
    std::size_t changes = 0;
    for (std::size_t top = 0; top < n; top += panel_rows) {
      std::size_t const count = std::min(panel_rows, n - top), rest = n - top - count;
      gather(state, rows.first + top, count, column, used);
      panel const p{h_.data(),
                    &rows.g(top, top),
                    rows.g.row_stride,
                    count,
                    width,
                    inner_sweeps,
                    slopes_.data() + top * width,
                    values_.data(),
                    scales_.data(),
                    has_zeros_ ? zeros_.data() : nullptr,
                    pushes_.data()};
      std::size_t const changed = kernel(p);
      changes += changed;
      if (changed == 0) continue;
      scatter(state, deviations, rows.first + top, count, column, used);
      matrix_view<float const> const pushes{pushes_.data(), count, used, width, 1};
      if (rest == 0) continue;
      add_product(1.0f, rows.g.part(top + count, top, rest, count), pushes, slopes.part(top + count, 0, rest, used),
                  linalg, executor);
    }
    return changes;
  }

 private:
  void gather_h(matrix_view<float const> h, std::size_t column, std::size_t used) {
    for (std::size_t r = 0; r < width; ++r) {
      for (std::size_t c = 0; c < width; ++c) {
        float const padding = r == c ? 1.0f : 0.0f;
        h_.data()[r * width + c] = std::max(r, c) < used ? h(column + r, column + c) : padding;
      }
    }
  }

  void gather(working_state const& state, std::size_t top, std::size_t count, std::size_t column, std::size_t used) {
    for (std::size_t r = 0; r < count; ++r) {
      float *const values = values_.data() + r * width, *const scales = scales_.data() + r * width;
      std::copy_n(state.values.row(top + r) + column, used, values);
      std::fill(values + used, values + width, 0.0f);
      for (std::size_t c = 0; c < used; ++c) scales[c] = state.scales.row(top + r)[(column + c) / state.group];
      std::fill(scales + used, scales + width, 1.0f);
      if (!has_zeros_) continue;
      float* const zeros = zeros_.data() + r * width;
      for (std::size_t c = 0; c < used; ++c) zeros[c] = state.zeros.row(top + r)[(column + c) / state.group];
      std::fill(zeros + used, zeros + width, 0.0f);
    }
  }

  void scatter(working_state& state, dense_matrix& deviations, std::size_t top, std::size_t count, std::size_t column,
               std::size_t used) const {
    for (std::size_t r = 0; r < count; ++r) {
      std::copy_n(values_.data() + r * width, used, state.values.row(top + r) + column);
      for (std::size_t c = column; c < column + used; ++c) {
        deviations.row(top + r)[c] = state.values.row(top + r)[c] - state.target.row(top + r)[c];
      }
    }
  }

  dense_matrix sums_;
  aligned_floats slopes_, h_, values_, scales_, zeros_, pushes_;
  bool has_zeros_;
};

/// Improves `state.values`.
template <linalg_backend Linalg, executor Executor>
void run_two_sided(two_sided const& options, damped_gram const& h, output_blocks const& g, working_state& state,
                   format_solver_kernels const& kernels, stage_report& report, Linalg const& linalg,
                   Executor& executor) {
  std::size_t const rows = state.target.rows(), columns = state.target.columns();
  dense_matrix deviations(rows, columns);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < columns; ++c) deviations.row(r)[c] = state.values.row(r)[c] - state.target.row(r)[c];
  }
  auto const descend = [&](std::size_t block, strip_descent& strip, auto& inner) {
    coupled_rows const coupled{block * g.block(), g.part(block)};
    std::size_t changes = 0;
    for (std::size_t column = 0; column < columns; column += strip_descent::width) {
      changes +=
          strip.run(column, coupled, options.inner_sweeps, h.view(), state, deviations, kernels.panel, linalg, inner);
    }
    return changes;
  };
  bool const has_zeros = state.zeros.rows() != 0;
  report.output_damping = g.damping();
  for (report.passes = 0; report.passes < options.passes;) {
    ++report.passes;
    std::atomic<std::size_t> changes{0};
    if (g.count() == 1) {
      strip_descent strip(rows, has_zeros);
      changes = descend(0, strip, executor);
    } else {
      executor.for_ranges(g.count(), [&](std::size_t begin, std::size_t end) {
        strip_descent strip(g.block(), has_zeros);
        serial_executor const alone;
        for (std::size_t i = begin; i < end; ++i) changes += descend(i, strip, alone);
      });
    }
    report.changed += changes;
    if (changes == 0) break;
  }
}

}  // namespace detail

}  // namespace prismaquant
