/// @file
/// Coordinate descent: one element after the other moves to its best value while all others stay.
#pragma once

#include <string_view>

#include "prismaquant/solver/slopes.hpp"
#include "prismaquant/solver/solution.hpp"
#include "prismaquant/solver/strip_descent.hpp"

namespace prismaquant {

/// Never raises the objective of a row. Ends where no change of a single element helps, or after `sweeps`.
struct coordinate_descent {
  static constexpr std::string_view name = "coordinate_descent";

  std::size_t sweeps = 4;
  /// After the columns of each group also its scale, in closed form, where the format has a scale per group of a row.
  bool refit_scales = true;
};

namespace detail {

/// Improves `state.values`.
template <linalg_backend Linalg, executor Executor>
void run_coordinate_descent(coordinate_descent const& options, damped_gram const& h, working_state& state,
                            format_solver_kernels const& kernels, stage_report& report, Linalg const& linalg,
                            Executor& executor) {
  update_slopes(state, h, linalg, executor);
  bool const refit = options.refit_scales && kernels.descent_refit != nullptr;
  std::size_t const rows = state.values.rows(), columns = state.values.columns();
  constexpr std::size_t together = 128;  // rows, for which each strip of H is read once
  std::size_t const blocks = (rows + together - 1) / together;
  std::vector<std::size_t> passes(blocks), changes(blocks);
  executor.for_ranges(blocks, [&](std::size_t begin, std::size_t end) {
    strip_descent strip(together);
    serial_executor const alone;
    for (std::size_t b = begin; b < end; ++b) {
      descent_rows const block{b * together, std::min(together, rows - b * together)};
      for (std::size_t changed = 1; changed != 0 && passes[b] < options.sweeps; ++passes[b]) {
        changed = 0;
        for (std::size_t column = 0; column < columns; column += strip_columns) {
          changed += strip.run(column, block, 1, h.view(), state, refit ? kernels.descent_refit : kernels.descent,
                               kernels.spread, linalg, alone);
        }
        changes[b] += changed;
      }
    }
  });
  for (std::size_t b = 0; b < blocks; ++b) {
    report.passes = std::max(report.passes, passes[b]);
    report.changed += changes[b];
  }
}

}  // namespace detail

}  // namespace prismaquant
