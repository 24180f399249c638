/// @file
/// Coordinate descent: one element after the other moves to its best value while all others stay.
#pragma once

#include <string_view>

#include "prismaquant/solver/column_order.hpp"
#include "prismaquant/solver/damping.hpp"
#include "prismaquant/solver/descent_tiles.hpp"
#include "prismaquant/solver/kernels/table.hpp"
#include "prismaquant/solver/solution.hpp"

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
template <executor Executor>
void run_coordinate_descent(coordinate_descent const& options, damped_gram const& h, working_state& state,
                            format_solver_kernels const& kernels, stage_report& report, Executor& executor) {
  square_strips const strips(h.view(), executor);
  auto const order = ordered_columns(column_order::natural, h.view(), state.group);
  gptq_rows const rows{state.target.view(), order, state.values.view(), state.scales.view(), state.group,
                       state.global_scale,  false, state.zeros.view()};
  bool const refit = options.refit_scales && kernels.descent_refit != nullptr;
  auto const done = run_descent(refit ? kernels.descent_refit : kernels.descent, strips.view(), rows, options.sweeps,
                                executor, refit);
  report.passes = done.sweeps;
  report.changed = done.changes;
}

}  // namespace detail

}  // namespace prismaquant
