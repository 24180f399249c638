/// @file
/// Encoding and decoding in one pass: fake quantization into a matrix, and the error it makes, without storing codes.
/// Both see the very choices and values of `encode` and `decode`.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

#include "prismaquant/codec/codec.hpp"

namespace prismaquant {

/// How far decoded values are from the weights.
struct error_summary {
  double squared_error = 0.0;   ///< sum of (decoded - weight)^2
  double squared_weight = 0.0;  ///< sum of weight^2
  double max_error = 0.0;       ///< largest |decoded - weight|

  /// Signal to noise ratio in decibel; infinite if the error is zero.
  double snr_db() const noexcept {
    if (squared_error == 0.0) return std::numeric_limits<double>::infinity();
    return 10.0 * std::log10(squared_weight / squared_error);
  }
};

namespace detail {

/// Sums per row, to be added up in row order: the same result for every executor.
class row_errors {
 public:
  explicit row_errors(std::size_t rows) : rows_(rows) {}

  void add(std::size_t r, float weight, float value) noexcept {
    double const difference = double{value} - double{weight};
    rows_[r].squared_error += difference * difference;
    rows_[r].squared_weight += double{weight} * double{weight};
    rows_[r].max_error = std::max(rows_[r].max_error, difference < 0.0 ? -difference : difference);
  }
  error_summary sum() const noexcept {
    fp_environment_guard const guard;
    error_summary total;
    for (auto const& row : rows_) {
      total.squared_error += row.squared_error;
      total.squared_weight += row.squared_weight;
      total.max_error = std::max(total.max_error, row.max_error);
    }
    return total;
  }

 private:
  std::vector<error_summary> rows_;
};

/// Calls `visit(row, column, weight, decoded)` for every element, the columns of a row in order, after its block was
/// read; rows of a block are visited by one thread.
template <format F, scale_rule Rule, weight_type T, class Executor, class Visit>
void for_each_roundtrip(matrix_view<T const> weights, float global_scale, encode_options const& options,
                        Executor& executor, Visit&& visit) {
  static_assert(Rule::template applies<F> && !std::same_as<Rule, given_rule>, "this scale rule is not for this format");
  require_global_scale(global_scale);
  if (require_encodable<F>(weights, options)) {
    auto const finite = saturated(weights);
    for_each_roundtrip<F, Rule>(view(std::span<T const>(finite), weights.rows, weights.columns), global_scale, options,
                                executor, visit);
    return;
  }
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

}  // namespace detail

/// Decoded values of encoded `weights`, written to `out`, which may be the very elements of `weights`.
/// @throws shape_error, numeric_error as `encode_into`.
template <format F, scale_rule Rule = amax_rule, weight_type T, weight_type Out, executor Executor = serial_executor>
void roundtrip(matrix_view<T const> weights, matrix_view<Out> out, float global_scale = 1.0f, Executor&& executor = {},
               encode_options const& options = {}) {
  detail::require_shape("out", out, weights.rows, weights.columns);
  if constexpr (nested_format<F>) {  // scales depend on the whole matrix: there is no one pass
    decode<F>(encode<F, Rule>(weights, global_scale, executor, options).view(), out, executor);
  } else {
    detail::for_each_roundtrip<F, Rule>(
        weights, global_scale, options, executor,
        [&](std::size_t r, std::size_t c, float, float value) { out(r, c) = round_to<Out>(value); });
  }
}

/// Error of a quantized matrix.
/// @throws shape_error, numeric_error (global scale).
template <format F, weight_type T, executor Executor = serial_executor>
error_summary error_of(matrix_view<T const> weights, const_quantized_view<F> quantized, Executor&& executor = {}) {
  if constexpr (nested_format<F>) {
    quantized.validate();
    fp_environment_guard const guard;
    detail::unnested<F> const plain(quantized);
    return error_of<typename F::base>(weights, plain.view(), executor);
  } else {
    quantized.validate();
    detail::require_shape("weight", weights, quantized.rows, quantized.columns);
    detail::row_errors errors(weights.rows);
    executor.for_ranges(weights.rows, [&](std::size_t begin, std::size_t end) {
      fp_environment_guard const guard;
      detail::for_each_decoded<F>(quantized, begin, end, [&](std::size_t r, std::size_t c, float value) {
        errors.add(r, weights(r, c), value);
      });
    });
    return errors.sum();
  }
}

/// Error that encoding `weights` would make. With `options.saturate` infinite weights count as what they saturate to.
/// @throws shape_error, numeric_error as `encode_into`.
template <format F, scale_rule Rule = amax_rule, weight_type T, executor Executor = serial_executor>
error_summary encoding_error(matrix_view<T const> weights, float global_scale = 1.0f, Executor&& executor = {},
                             encode_options const& options = {}) {
  if constexpr (nested_format<F>) {
    if (detail::require_encodable<F>(weights, options)) {
      auto const finite = detail::saturated(weights);
      return encoding_error<F, Rule>(view(std::span<T const>(finite), weights.rows, weights.columns), global_scale,
                                     executor, options);
    }
    return error_of<F>(weights, encode<F, Rule>(weights, global_scale, executor, options).view(), executor);
  } else {
    detail::row_errors errors(weights.rows);
    detail::for_each_roundtrip<F, Rule>(
        weights, global_scale, options, executor,
        [&](std::size_t r, std::size_t, float weight, float value) { errors.add(r, weight, value); });
    return errors.sum();
  }
}

}  // namespace prismaquant
