/// @file
/// Coordinate descent on tr(D' G D H), D = values - target: rows are coupled by the Gram G of the output gradients.
#pragma once

#include <atomic>
#include <string_view>

#include "prismaquant/solver/output_gram.hpp"
#include "prismaquant/solver/slopes.hpp"
#include "prismaquant/solver/solution.hpp"
#include "prismaquant/solver/strip_descent.hpp"

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

/// Improves `state.values`.
template <linalg_backend Linalg, executor Executor>
void run_two_sided(two_sided const& options, damped_gram const& h, output_blocks const& g, working_state& state,
                   format_solver_kernels const& kernels, stage_report& report, Linalg const& linalg,
                   Executor& executor) {
  update_slopes(state, h, linalg, executor);
  auto const descend = [&](std::size_t block, strip_descent& strip, auto& inner) {
    descent_rows const rows{block * g.block(), g.part(block).rows, g.part(block)};
    std::size_t changes = 0;
    for (std::size_t column = 0; column < state.values.columns(); column += strip_columns) {
      changes += strip.run(column, rows, options.inner_sweeps, h.view(), state, kernels.descent, kernels.spread, linalg,
                           inner);
    }
    return changes;
  };
  report.output_damping = g.damping();
  for (std::size_t changed = 1; changed != 0 && report.passes < options.passes; ++report.passes) {
    std::atomic<std::size_t> changes{0};
    if (g.count() == 1) {
      strip_descent strip(g.block());
      changes = descend(0, strip, executor);
    } else {
      executor.for_ranges(g.count(), [&](std::size_t begin, std::size_t end) {
        strip_descent strip(g.block());
        serial_executor const alone;
        for (std::size_t i = begin; i < end; ++i) changes += descend(i, strip, alone);
      });
    }
    report.changed += changed = changes;
  }
}

}  // namespace detail

}  // namespace prismaquant
