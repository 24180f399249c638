/// @file
/// What a solver is given and what it returns.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "prismaquant/codec/codec.hpp"

namespace prismaquant {

/// What a solver knows beside the weights. All matrices are sums over tokens, which solvers divide by the counts. An
/// empty view (null data) stands for "not known".
struct solve_context {
  /// Global scale (a divisor) decided for the whole unit of fused siblings; without it, the one of this matrix alone.
  std::optional<float> global_scale = {};
  /// H [columns, columns]: sum of x x' over the inputs x that the quantized matrix will see.
  matrix_view<float const> gram = {};
  std::size_t tokens = 0;  ///< how many inputs `gram` sums; 0 (an expert that no token reached): as if it were unknown
  /// G: sum of g g' over the output gradients g, [rows, rows]; or [rows, b]: only its diagonal blocks of b rows, one
  /// below the other ([rows, 1]: one weight per row).
  matrix_view<float const> output_gram = {};
  std::size_t output_tokens = 0;  ///< how many gradients `output_gram` sums; 0: as many as `tokens`
  /// [columns, columns]: sum of x_source x', the inputs of the unquantized model against those that `gram` sums.
  matrix_view<float const> cross_gram = {};
  /// [columns, columns] over the inputs of all experts of a layer: what `gram` is shrunk to when few tokens chose this
  /// expert.
  matrix_view<float const> pooled_gram = {};
  std::size_t pooled_tokens = 0;
  /// [rows, columns], row stride 0 for one number per column: how much squared errors count in `scale_sweep`.
  matrix_view<float const> importance = {};
  /// What is added to the diagonals of H and G, as a share of their means; by default `damping_rule`.
  std::optional<float> damping = {}, output_damping = {};
  /// Bytes that a solver may allocate; 0 stands for nine tenths of the machine's memory.
  std::size_t memory_limit = 0;
};

/// What one stage of a chain did. Objectives are those of the whole chain (see `solve`), per token.
struct stage_report {
  std::string_view name;
  std::optional<double> before;  ///< objective of what came in; nothing came in to the first stage
  std::optional<double> after;   ///< objective of what went on; none for stages that only move the target
  double damping = 0.0;          ///< added to the diagonal of H, as a share of its mean
  double output_damping = 0.0;   ///< likewise for G
  std::size_t retries = 0;       ///< how often damping was raised because H could not be factored
  std::size_t passes = 0;        ///< sweeps over all elements
  std::size_t changed = 0;       ///< changes of values and scales, over all passes
  std::size_t rows_kept = 0;     ///< rows that stayed as they came in, because the stage would have made them worse
  double seconds = 0.0;
};

/// What a solver did.
struct solve_report {
  std::string_view solver;           ///< name of the last solver
  double squared_error = 0.0;        ///< sum of (decoded - weight)^2
  std::size_t dead_columns = 0;      ///< inputs that are always zero
  std::vector<stage_report> stages;  ///< of a chain; empty for a single data-free solver
};

template <format F>
struct solution {
  quantized_matrix<F> quantized;
  solve_report report;
};

/// Has a name; its members are its options.
template <class S>
concept solver = requires {
  { S::name } -> std::convertible_to<std::string_view>;
};

/// Chooses codes and scales from the weights alone. Its scale rule also settles the room that the global scale leaves.
template <class S>
concept data_free_solver = solver<S> && requires {
  requires scale_rule<typename S::rule>;
};

/// The one place that decides a global scale: the divisor for matrices that an engine fuses, and whose scales it
/// therefore merges, from their common largest magnitude. 1 where the format has none.
template <data_free_solver S, format F>
constexpr float shared_global_scale(float amax) noexcept {
  return global_scale_for<typename S::rule, F>(amax);
}

/// Solves `weights` into `out`, whose global scale is used as it is.
/// @throws shape_error, numeric_error as `encode_into`.
template <data_free_solver S, format F, weight_type T, executor Executor>
solve_report solve_into(matrix_view<T const> weights, quantized_view<F> out, Executor&& executor) {
  encode_into<F, typename S::rule>(weights, out, executor);
  solve_report report;
  report.solver = S::name;
  report.squared_error = squared_error<F>(weights, out, executor);
  return report;
}

/// Solves `weights` alone or, given the unit's global scale, as one of several fused siblings.
template <data_free_solver S, format F, weight_type T, executor Executor = serial_executor>
solution<F> solve(matrix_view<T const> weights, solve_context const& context = {}, Executor&& executor = {}) {
  float const global_scale =
      context.global_scale ? *context.global_scale : shared_global_scale<S, F>(largest_magnitude(weights, executor));
  solution<F> result{quantized_matrix<F>(weights.rows, weights.columns, global_scale), {}};
  result.report = solve_into<S, F>(weights, result.quantized.view(), executor);
  return result;
}

}  // namespace prismaquant
