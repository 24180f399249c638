/// @file
/// The codec: encode, decode and squared error of one matrix in one format. Every function validates shapes first and
/// touches no output before; results are the same for every executor and every instruction set. What is written out
/// here is the scalar reference; `row_kernels.hpp` does the same, faster, where it can.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "prismaquant/codec/block_grid.hpp"
#include "prismaquant/codec/encode_options.hpp"
#include "prismaquant/codec/quantized.hpp"
#include "prismaquant/codec/row_kernels.hpp"
#include "prismaquant/codec/scale_rules.hpp"
#include "prismaquant/core/executor.hpp"
#include "prismaquant/core/fp_environment.hpp"

namespace prismaquant {

/// How many values of a matrix no format can store.
struct nonfinite_count {
  std::size_t nan = 0;
  std::size_t infinite = 0;
  std::size_t first_row = 0;  ///< row of the first one
  std::size_t first_column = 0;
};

/// Counts NaN and infinite values.
template <weight_type T>
nonfinite_count count_nonfinite(matrix_view<T const> weights) noexcept {
  nonfinite_count found;
  for (std::size_t r = 0; r < weights.rows; ++r) {
    for (std::size_t c = 0; c < weights.columns; ++c) {
      float const value = weights(r, c);
      if (is_finite(value)) continue;
      if (found.nan + found.infinite == 0) {
        found.first_row = r;
        found.first_column = c;
      }
      ++(value != value ? found.nan : found.infinite);
    }
  }
  return found;
}

namespace detail {
[[noreturn]] inline void refuse_nonfinite(std::string const& name, nonfinite_count const& bad) {
  throw numeric_error(name + ": " + std::to_string(bad.nan) + " NaN and " + std::to_string(bad.infinite) +
                      " infinite values, the first at row " + std::to_string(bad.first_row) + ", column " +
                      std::to_string(bad.first_column));
}
}  // namespace detail

/// @throws numeric_error if the matrix called `name` holds NaN or infinite values: how many, and where the first is.
template <weight_type T>
void require_finite(std::string const& name, matrix_view<T const> weights) {
  auto const bad = count_nonfinite(weights);
  if (bad.nan + bad.infinite != 0) detail::refuse_nonfinite(name, bad);
}

/// Why format `F` cannot store a matrix with so many columns; empty if it can.
template <format F>
std::string why_not(std::size_t columns) {
  constexpr std::size_t group = F::block_shape::columns;
  if constexpr (!F::ragged_blocks) {
    if (columns % group != 0) {
      return "columns (axis 1) = " + std::to_string(columns) + " is not a multiple of the group size " +
             std::to_string(group) + " of " + std::string(F::name);
    }
  }
  return {};
}

namespace detail {

/// Calls `visit(block_row, block_column, block)` for every block of block rows [begin, end).
template <format F, class T, class Visit>
void for_each_block(matrix_view<T> m, std::size_t begin, std::size_t end, Visit&& visit) {
  std::size_t const height = F::block_shape::rows != 0 ? F::block_shape::rows : m.rows;
  std::size_t const width = F::block_shape::columns != 0 ? F::block_shape::columns : m.columns;
  std::size_t const blocks_per_row = stored<F>(m.rows, m.columns).scale_columns;  // an empty row still has its scale
  for (std::size_t i = begin; i < end; ++i) {
    std::size_t const top = i * height;
    for (std::size_t j = 0; j < blocks_per_row; ++j) {
      std::size_t const left = j * width;
      visit(i, j, m.part(top, left, std::min(height, m.rows - top), std::min(width, m.columns - left)));
    }
  }
}

/// Checks the shapes of `weights` and of what `options` holds for format `F`, and the importance itself.
/// @throws shape_error, numeric_error
template <format F, weight_type T>
void require_fitting(matrix_view<T const> weights, encode_options const& options) {
  if (auto const reason = why_not<F>(weights.columns); !reason.empty()) throw shape_error("weight: " + reason);
  require_importance(options.importance, weights.rows, weights.columns);
}

/// Checks that `weights` are numbers that `options` allows to encode.
/// @returns whether there are infinite weights, which `options` allows to saturate.
/// @throws numeric_error
template <weight_type T>
bool require_storable(matrix_view<T const> weights, encode_options const& options) {
  auto const bad = count_nonfinite(weights);
  if (bad.nan != 0 || (bad.infinite != 0 && !options.saturate)) refuse_nonfinite("weight", bad);
  return bad.infinite != 0;
}

/// Both checks.
template <format F, weight_type T>
bool require_encodable(matrix_view<T const> weights, encode_options const& options) {
  require_fitting<F>(weights, options);
  return require_storable(weights, options);
}

}  // namespace detail

/// Encodes `weights` into `out` (whose shapes must fit, whose global scale is used), choosing block scales by `Rule`.
/// Each element is the nearest value of weight / scale (an exact quotient), ties to even, saturating; with zero points
/// that of weight / scale + zero, rounded to float32 twice, as compressed-tensors does.
/// @throws shape_error, numeric_error (NaN or infinite weights: how many, and where the first is; `out` may then hold
/// anything, because the weights are read only once).
template <format F, scale_rule Rule = amax_rule, weight_type T, executor Executor>
void encode_into(matrix_view<T const> weights, quantized_view<F> out, Executor&& executor,
                 encode_options const& options = {}) {
  static_assert(Rule::template applies<F>, "this scale rule is not for this format");
  if (out.rows != weights.rows || out.columns != weights.columns) {
    throw shape_error("weight is " + detail::shape_text(weights.rows, weights.columns) + ", the output is for " +
                      detail::shape_text(out.rows, out.columns));
  }
  out.validate();
  detail::require_fitting<F>(weights, options);
  if constexpr (std::same_as<Rule, given_rule>) {
    if constexpr (has_scales<F>) detail::require_given<F>(out);
  } else {
    detail::clear(out.extra);
  }
  if (detail::encode_with_kernels<F, Rule>(weights, out, executor, options.importance)) return;
  if (detail::require_storable(weights, options)) {
    auto const finite = detail::saturated(weights);
    return encode_into<F, Rule>(view(std::span<T const>(finite), weights.rows, weights.columns), out, executor,
                                options);
  }
  if constexpr (!has_scales<F>) {
    executor.for_ranges(weights.rows, [&](std::size_t begin, std::size_t end) {
      fp_environment_guard const guard;
      for (std::size_t r = begin; r < end; ++r) {
        for (std::size_t c = 0; c < weights.columns; ++c)
          F::layout::put(out.codes, r, c, F::element::encode(weights(r, c)));
      }
    });
  } else {
    detail::for_block_rows<F>(executor, out.scales.rows, [&](std::size_t begin, std::size_t end) {
      fp_environment_guard const guard;
      detail::for_each_block<F>(weights, begin, end, [&](std::size_t i, std::size_t j, matrix_view<T const> block) {
        std::size_t const top = i * F::block_shape::rows;
        std::size_t const left = j * F::block_shape::columns;
        if constexpr (!std::same_as<Rule, given_rule>) {
          auto const importance = detail::part_of(options.importance, top, left, block.rows, block.columns);
          detail::put_choice<F>(out, i, j, detail::choose_block<F, Rule>(block, importance, out.global_scale));
        }
        detail::block_grid<F> const grid(detail::get_choice<F>(out, i, j), out.global_scale);
        for (std::size_t r = 0; r < block.rows; ++r) {
          for (std::size_t c = 0; c < block.columns; ++c) {
            F::layout::put(out.codes, top + r, left + c, grid.encode(block(r, c)));
          }
        }
      });
    });
  }
}

/// Encodes `weights`; `global_scale` (a divisor) matters only where the format has one.
template <format F, scale_rule Rule = amax_rule, weight_type T, executor Executor = serial_executor>
requires(!std::same_as<Rule, given_rule>) quantized_matrix<F> encode(matrix_view<T const> weights,
                                                                     float global_scale = 1.0f,
                                                                     Executor&& executor = {},
                                                                     encode_options const& options = {}) {
  quantized_matrix<F> result(weights.rows, weights.columns, global_scale);
  encode_into<F, Rule>(weights, result.view(), executor, options);
  return result;
}

namespace detail {

/// Calls `visit(row, column, value)` for every decoded element of rows [begin, end), row by row. The element is scaled
/// in float32: E * (scale / global_scale) or (E - zero) * scale, the order of operations of compressed-tensors.
template <format F, class Visit>
void for_each_decoded(const_quantized_view<F> q, std::size_t begin, std::size_t end, Visit&& visit) {
  for (std::size_t r = begin; r < end; ++r) {
    std::size_t const i = F::block_shape::rows != 0 ? r / F::block_shape::rows : 0;
    std::size_t const width = F::block_shape::columns != 0 ? F::block_shape::columns : q.columns;
    for (std::size_t left = 0; left < q.columns; left += width) {
      block_grid<F> grid;
      if constexpr (has_scales<F>) grid = {get_choice<F>(q, i, left / width), q.global_scale};
      std::size_t const right = std::min(left + width, q.columns);
      for (std::size_t c = left; c < right; ++c) {
        visit(r, c, grid.decode(static_cast<typename F::element::code_type>(F::layout::get(q.codes, r, c))));
      }
    }
  }
}

}  // namespace detail

/// Decodes into `out` (float32, or a 16-bit float rounded from the float32 value).
/// @throws shape_error, numeric_error (global scale).
template <format F, weight_type Out, executor Executor = serial_executor>
void decode(const_quantized_view<F> quantized, matrix_view<Out> out, Executor&& executor = {}) {
  quantized.validate();
  detail::require_shape("out", out, quantized.rows, quantized.columns);
  using target = detail::matrix_target<Out>;
  if (detail::decode_with_kernels<F, target>(quantized, matrix_view<Out const>{}, executor,
                                             [&] { return target(out); })) {
    return;
  }
  executor.for_ranges(quantized.rows, [&](std::size_t begin, std::size_t end) {
    fp_environment_guard const guard;
    detail::for_each_decoded<F>(quantized, begin, end,
                                [&](std::size_t r, std::size_t c, float value) { out(r, c) = round_to<Out>(value); });
  });
}

/// Error of a quantized matrix.
/// @throws shape_error, numeric_error (global scale).
template <format F, weight_type T, executor Executor = serial_executor>
error_summary error_of(matrix_view<T const> weights, const_quantized_view<F> quantized, Executor&& executor = {}) {
  quantized.validate();
  detail::require_shape("weight", weights, quantized.rows, quantized.columns);
  detail::row_errors errors(weights.rows);
  using target = detail::error_target;
  if (!detail::decode_with_kernels<F, target>(quantized, weights, executor, [&] { return target(errors); })) {
    executor.for_ranges(weights.rows, [&](std::size_t begin, std::size_t end) {
      fp_environment_guard const guard;
      detail::for_each_decoded<F>(quantized, begin, end, [&](std::size_t r, std::size_t c, float value) {
        errors.row(r).add(c, weights(r, c), value);
      });
    });
  }
  return errors.sum();
}

/// Sum of (decoded - weight)^2 over a quantized matrix. Throws as `error_of`.
template <format F, weight_type T, executor Executor = serial_executor>
double squared_error(matrix_view<T const> weights, const_quantized_view<F> quantized, Executor&& executor = {}) {
  return error_of<F>(weights, quantized, executor).squared_error;
}

}  // namespace prismaquant

#include "prismaquant/codec/nested.hpp"  // the same functions for nested formats
