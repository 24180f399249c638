/// @file
/// Encoding and decoding in one pass: fake quantization into a matrix, and the error it makes, without storing codes.
/// Both see the very choices and values of `encode` and `decode`.
#pragma once

#include <bit>
#include <cstddef>
#include <span>

#include "prismaquant/codec/codec.hpp"

namespace prismaquant {

namespace detail {

/// Calls `visit(row, column, weight, decoded)` for every element, the columns of a row in order, after its block was
/// read; rows of a block are visited by one thread.
template <format F, scale_rule Rule, weight_type T, class Executor, class Visit>
void for_each_roundtrip(matrix_view<T const> weights, float global_scale, encode_options const& options,
                        Executor& executor, Visit&& visit) {
  if constexpr (!has_scales<F>) {
    executor.for_ranges(weights.rows, [&](std::size_t begin, std::size_t end) {
      fp_environment_guard const guard;
      block_grid<F> const grid;
      for (std::size_t r = begin; r < end; ++r) {
        for (std::size_t c = 0; c < weights.columns; ++c) {
          float const weight = weights(r, c);
          visit(r, c, weight, grid.decode(grid.encode(weight)));
        }
      }
    });
  } else {
    executor.for_ranges(stored<F>(weights.rows, weights.columns).scale_rows, [&](std::size_t begin, std::size_t end) {
      fp_environment_guard const guard;
      for_each_block<F>(weights, begin, end, [&](std::size_t i, std::size_t j, matrix_view<T const> block) {
        std::size_t const top = i * F::block_shape::rows;
        std::size_t const left = j * F::block_shape::columns;
        auto const importance = part_of(options.importance, top, left, block.rows, block.columns);
        block_grid<F> const grid(choose_block<F, Rule>(block, importance, global_scale), global_scale);
        for (std::size_t r = 0; r < block.rows; ++r) {
          for (std::size_t c = 0; c < block.columns; ++c) {
            float const weight = block(r, c);
            visit(top + r, left + c, weight, grid.decode(grid.encode(weight)));
          }
        }
      });
    });
  }
}

/// Checks what the two functions below were given, and calls `run(weights)` with finite ones.
template <format F, scale_rule Rule, weight_type T, class Executor, class Run>
void with_finite(matrix_view<T const> weights, float global_scale, Executor& executor, encode_options const& options,
                 Run&& run) {
  static_assert(Rule::template applies<F> && !std::same_as<Rule, given_rule>, "this scale rule is not for this format");
  require_global_scale(global_scale);
  require_fitting<F>(weights, options);
  bool const known = largest_finder<T>() != nullptr && is_finite(std::bit_cast<float>(largest_bits(weights, executor)));
  if (known || !require_storable(weights, options)) return run(weights);
  auto const finite = saturated(weights);
  run(view(std::span<T const>(finite), weights.rows, weights.columns));
}

}  // namespace detail

/// Decoded values of encoded `weights`, written to `out`, which may be the very elements of `weights`.
/// @throws shape_error, numeric_error as `encode_into`; `out` is then untouched.
template <format F, scale_rule Rule = amax_rule, weight_type T, weight_type Out, executor Executor = serial_executor>
void roundtrip(matrix_view<T const> weights, matrix_view<Out> out, float global_scale = 1.0f, Executor&& executor = {},
               encode_options const& options = {}) {
  detail::require_shape("out", out, weights.rows, weights.columns);
  detail::with_finite<F, Rule>(weights, global_scale, executor, options, [&](matrix_view<T const> finite) {
    if constexpr (nested_format<F>) {  // scales depend on the whole matrix: there is no one pass
      decode<F>(encode<F, Rule>(finite, global_scale, executor, options).view(), out, executor);
    } else {
      using target = detail::matrix_target<Out>;
      if (detail::roundtrip_with_kernels<F, Rule, target>(finite, global_scale, executor, options.importance,
                                                          [&] { return target(out); })) {
        return;
      }
      detail::for_each_roundtrip<F, Rule>(
          finite, global_scale, options, executor,
          [&](std::size_t r, std::size_t c, float, float value) { out(r, c) = round_to<Out>(value); });
    }
  });
}

/// Error that encoding `weights` would make. With `options.saturate` infinite weights count as what they saturate to.
/// @throws shape_error, numeric_error as `encode_into`.
template <format F, scale_rule Rule = amax_rule, weight_type T, executor Executor = serial_executor>
error_summary encoding_error(matrix_view<T const> weights, float global_scale = 1.0f, Executor&& executor = {},
                             encode_options const& options = {}) {
  error_summary found;
  detail::with_finite<F, Rule>(weights, global_scale, executor, options, [&](matrix_view<T const> finite) {
    if constexpr (nested_format<F>) {
      found = error_of<F>(finite, encode<F, Rule>(finite, global_scale, executor, options).view(), executor);
    } else {
      detail::row_errors errors(finite.rows);
      using target = detail::error_target;
      if (!detail::roundtrip_with_kernels<F, Rule, target>(finite, global_scale, executor, options.importance,
                                                           [&] { return target(errors); })) {
        detail::for_each_roundtrip<F, Rule>(
            finite, global_scale, options, executor,
            [&](std::size_t r, std::size_t c, float weight, float value) { errors.row(r).add(c, weight, value); });
      }
      found = errors.sum();
    }
  });
  return found;
}

}  // namespace prismaquant
