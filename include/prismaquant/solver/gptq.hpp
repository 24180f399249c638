/// @file
/// GPTQ: columns are rounded one after the other, each error spread over the columns that follow.
#pragma once

#include <string_view>

#include "prismaquant/linalg/backend.hpp"
#include "prismaquant/solver/column_order.hpp"
#include "prismaquant/solver/damping.hpp"
#include "prismaquant/solver/kernels/table.hpp"
#include "prismaquant/solver/solution.hpp"
#include "prismaquant/solver/tiles.hpp"

namespace prismaquant {

enum class scale_choice {
  automatic,  ///< `in_loop` where the format's scales can be swept, else `given`
  in_loop,    ///< for each group when it is reached: the best for its compensated weights, H-weighted, exactly
  given,      ///< those of the stage before; at the start of a chain those of `scale_sweep`
};

/// Source: Frantar et al., "GPTQ" (arXiv 2210.17323); scales in the loop as in solvers of this library's kind.
struct gptq {
  static constexpr std::string_view name = "gptq";

  column_order order = column_order::automatic;
  scale_choice scales = scale_choice::automatic;
};

namespace detail {

/// Whether `options` ask for scales in the loop of a format that has `kernels`.
/// @throws format_error if they ask for what there is not
inline bool chooses_in_loop(gptq const& options, format_solver_kernels const& kernels, std::string_view format_name) {
  bool const possible = kernels.gptq_sweep != nullptr;
  if (options.scales == scale_choice::in_loop && !possible) {
    throw format_error("gptq: scales of " + std::string(format_name) +
                       " cannot be swept in the loop; take scale_choice::given");
  }
  bool const in_loop = possible && options.scales != scale_choice::given;
  if (in_loop && options.order == column_order::activation) {
    throw format_error(
        "gptq: activation order takes groups apart, so their scales cannot be chosen in the loop; take "
        "column_order::group_activation or scale_choice::given");
  }
  return in_loop;
}

/// Rounds `state.target` into `state.values`.
template <linalg_backend Linalg, executor Executor>
void run_gptq(gptq const& options, bool in_loop, damped_gram& h, working_state& state,
              format_solver_kernels const& kernels, stage_report& report, Linalg const& linalg, Executor& executor) {
  state.forget_slopes();
  column_order kind = options.order;
  if (kind == column_order::automatic) kind = in_loop ? column_order::group_activation : column_order::activation;
  auto const order = ordered_columns(kind, h.view(), state.group);
  auto const strips = [&] {  // the factor itself is gone when the loop starts
    dense_matrix const u = factored(h, order, linalg, report.retries);
    return triangle_strips(u.view(), executor);
  }();
  gptq_rows const rows{state.target.view(), order,   state.values.view(), state.scales.view(), state.group,
                       state.global_scale,  in_loop, state.zeros.view()};
  run_tiles(in_loop ? kernels.gptq_sweep : kernels.gptq, strips.view(), rows, executor);
  report.passes = 1;
}

}  // namespace detail

}  // namespace prismaquant
