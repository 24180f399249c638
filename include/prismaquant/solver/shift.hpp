/// @file
/// The mismatch-corrected target: weights that answer for the inputs of the already quantized layers before them.
#pragma once

#include <optional>
#include <string_view>

#include "prismaquant/solver/column_order.hpp"
#include "prismaquant/solver/damping.hpp"
#include "prismaquant/solver/products.hpp"
#include "prismaquant/solver/solution.hpp"

namespace prismaquant {

/// With X the inputs of the source and X~ those that the quantized matrix will see (activations of both unquantized),
/// the target becomes W + strength * W D (H~ + shrinkage * mean diagonal * I)^-1, D = (X - X~)' X~ / tokens. For
/// strength 1 and no shrinkage that is the W' whose outputs W' X~ come nearest to W X.
struct shift {
  static constexpr std::string_view name = "shift";

  /// By default 0.75, with fewer than ten tokens per column 0.5.
  std::optional<float> strength = {};
  /// By default 0.01, with fewer than ten tokens per column 0.1.
  std::optional<float> shrinkage = {};
};

namespace detail {

/// Moves `state.target`.
template <linalg_backend Linalg, executor Executor>
void run_shift(shift const& options, solve_context const& context, working_state& state, stage_report& report,
               Linalg const& linalg, Executor& executor) {
  state.forget_slopes();
  std::size_t const n = state.target.columns();
  bool const few = context.tokens < 10 * n;
  auto const count = static_cast<float>(context.tokens);
  damped_gram h(mean_gram(context.gram, context.tokens, {}, 0, executor),
                double{options.shrinkage.value_or(few ? 0.1f : 0.01f)});
  dense_matrix const u = factored(h, ordered_columns(column_order::natural, h.view(), n), linalg, report.retries);
  report.damping = h.damping();
  h = {};
  dense_matrix difference(n, n);
  for (std::size_t r = 0; r < n; ++r) {
    for (std::size_t c = 0; c < n; ++c) difference.row(r)[c] = (context.cross_gram(r, c) - context.gram(r, c)) / count;
  }
  dense_matrix a(state.target.rows(), n), b(state.target.rows(), n);
  add_product(1.0f, state.target.view(), difference.view(), a.view(), linalg, executor);
  add_product(1.0f, a.view(), transposed_view(u.view()), b.view(), linalg, executor);
  add_product(options.strength.value_or(few ? 0.5f : 0.75f), b.view(), u.view(), state.target.view(), linalg, executor);
}

}  // namespace detail

}  // namespace prismaquant
