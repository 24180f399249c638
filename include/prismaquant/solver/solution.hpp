/// @file
/// What a solver is given and what it returns.
#pragma once

#include <optional>
#include <string_view>

#include "prismaquant/codec/codec.hpp"

namespace prismaquant {

/// What a solver knows beside the weights.
struct solve_context {
  /// Global scale (a divisor) decided for the whole unit of fused siblings; without it, the one of this matrix alone.
  std::optional<float> global_scale;
};

/// What a solver did.
struct solve_report {
  std::string_view solver;     ///< name of the solver
  double squared_error = 0.0;  ///< sum of (decoded - weight)^2
};

template <format F>
struct solution {
  quantized_matrix<F> quantized;
  solve_report report;
};

/// A solver chooses codes and scales. Its scale rule also settles the room that the global scale leaves.
template <class S>
concept solver = requires {
  { S::name } -> std::convertible_to<std::string_view>;
  requires scale_rule<typename S::rule>;
};

/// The one place that decides a global scale: the divisor for matrices that an engine fuses, and whose scales it
/// therefore merges, from their common largest magnitude. 1 where the format has none.
template <solver S, format F>
constexpr float shared_global_scale(float amax) noexcept {
  return global_scale_for<typename S::rule, F>(amax);
}

/// Solves `weights` into `out`, whose global scale is used as it is.
/// @throws shape_error, numeric_error as `encode_into`.
template <solver S, format F, weight_type T, executor Executor>
solve_report solve_into(matrix_view<T const> weights, quantized_view<F> out, Executor&& executor) {
  encode_into<F, typename S::rule>(weights, out, executor);
  return {S::name, squared_error<F>(weights, out, executor)};
}

/// Solves `weights` alone or, given the unit's global scale, as one of several fused siblings.
template <solver S, format F, weight_type T, executor Executor = serial_executor>
solution<F> solve(matrix_view<T const> weights, solve_context const& context = {}, Executor&& executor = {}) {
  float const global_scale =
      context.global_scale ? *context.global_scale : shared_global_scale<S, F>(largest_magnitude(weights, executor));
  solution<F> result{quantized_matrix<F>(weights.rows, weights.columns, global_scale), {}};
  result.report = solve_into<S, F>(weights, result.quantized.view(), executor);
  return result;
}

}  // namespace prismaquant
