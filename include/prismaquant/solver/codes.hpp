/// @file
/// From the working state of a chain to stored codes and scales, and back.
#pragma once

#include <bit>

#include "prismaquant/codec/codec.hpp"
#include "prismaquant/solver/dense_matrix.hpp"
#include "prismaquant/solver/presets.hpp"

namespace prismaquant::detail {

/// The code of a scale codec whose effective scale is `scale`.
template <format F>
typename F::scale::code_type scale_code(float scale, float global_scale) noexcept {
  using codec = typename F::scale;
  using code = typename codec::code_type;
  if constexpr (std::same_as<codec, e4m3_scale>) {
    return e4m3::encode(scale * global_scale);  // within a rounding of the value, far from every other one
  } else if constexpr (is_e8m0<codec>) {
    return static_cast<code>(std::bit_cast<std::uint32_t>(scale) >> 23);
  } else if constexpr (std::same_as<codec, bf16_scale>) {
    return static_cast<code>(std::bit_cast<std::uint32_t>(scale) >> 16);
  } else {
    return scale;
  }
}

/// A state for `weights` in `F`, without values.
template <format F, weight_type T, executor Executor>
working_state make_state(matrix_view<T const> weights, float global_scale,
                         Executor& executor) requires has_gram_solvers<F> {
  working_state state;
  state.group = F::block_shape::columns != 0 ? F::block_shape::columns : std::max<std::size_t>(weights.columns, 1);
  state.global_scale = global_scale;
  std::size_t const groups = (weights.columns + state.group - 1) / state.group;
  state.target = dense_matrix(weights.rows, weights.columns);
  state.values = dense_matrix(weights.rows, weights.columns);
  state.scales = dense_matrix(weights.rows, groups);
  if (has_zero_points<F>) state.zeros = dense_matrix(weights.rows, groups);
  executor.for_ranges(weights.rows, [&](std::size_t begin, std::size_t end) {
    for (std::size_t r = begin; r < end; ++r) {
      for (std::size_t c = 0; c < weights.columns; ++c) state.target.row(r)[c] = weights(r, c);
    }
  });
  return state;
}

/// Rounds the target to nearest under the scales that `Rule` chooses.
template <format F, scale_rule Rule, executor Executor>
void round_target(working_state& state, matrix_view<float const> importance, Executor& executor) {
  quantized_matrix<F> q(state.target.rows(), state.target.columns(), state.global_scale);
  encode_into<F, Rule>(std::as_const(state.target).view(), q.view(), executor, {.importance = importance});
  auto const view = std::as_const(q).view();
  decode<F>(view, state.values.view(), executor);
  std::size_t const height = F::block_shape::rows != 0 ? F::block_shape::rows : std::max<std::size_t>(q.rows(), 1);
  for (std::size_t r = 0; r < state.scales.rows(); ++r) {
    for (std::size_t g = 0; g < state.scales.columns(); ++g) {
      block_grid<F> const grid(get_choice<F>(view, r / height, g), state.global_scale);
      state.scales.row(r)[g] = grid.scale;
      if constexpr (has_zero_points<F>) state.zeros.row(r)[g] = grid.zero;
    }
  }
  state.has_values = true;
  state.forget_slopes();
}

/// Codes and scales of the values, which lie on the grid.
template <format F, executor Executor>
void store_state(working_state const& state, quantized_view<F> out, Executor& executor) {
  std::size_t const height = F::block_shape::rows != 0 ? F::block_shape::rows : std::max<std::size_t>(out.rows, 1);
  clear(out.extra);
  for (std::size_t i = 0; i < out.scales.rows; ++i) {
    if (i * height >= out.rows) continue;
    for (std::size_t g = 0; g < std::min(out.scales.columns, state.scales.columns()); ++g) {
      block_choice<F> choice{scale_code<F>(state.scales.row(i * height)[g], state.global_scale), {}};
      if constexpr (has_zero_points<F>) choice.zero_point = F::element::encode(state.zeros.row(i * height)[g]);
      put_choice<F>(out, i, g, choice);
    }
  }
  encode_into<F, given_rule>(state.values.view(), out, executor);
}

}  // namespace prismaquant::detail
