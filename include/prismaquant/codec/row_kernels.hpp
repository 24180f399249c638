/// @file
/// Brings matrices to the kernels of `codec/kernels/`. The codec asks here first and does the work itself where the
/// answer is no; bytes and sums are the same either way.
#pragma once

#include <atomic>
#include <vector>

#include "prismaquant/codec/block_grid.hpp"
#include "prismaquant/codec/group_rows.hpp"
#include "prismaquant/codec/run_rows.hpp"

namespace prismaquant::detail {

/// Whether there are kernels that encode `F` by `Rule`, and decode to `Out`.
template <format F, class Rule, weight_type T>
bool has_encoder() {
  if constexpr (nested_format<F>) {
    return false;
  } else if constexpr (in_groups<F>) {
    return round_encoder<F, Rule, T>::exists();
  } else {
    return run_encoder<F, T>() != nullptr;
  }
}
template <format F, weight_type Out>
bool has_decoder() {
  if constexpr (nested_format<F>) {
    return false;
  } else if constexpr (in_groups<F>) {
    return groups_decoder<F, Out>() != nullptr;
  } else {
    return run_decoder<F, Out>() != nullptr;
  }
}

/// Encodes with kernels. False, with `out` unspecified, if there are none for this case or a weight is not finite.
template <format F, scale_rule Rule, weight_type T, executor Executor>
bool encode_with_kernels(matrix_view<T const> weights, quantized_view<F> out, Executor& executor,
                         matrix_view<float const> importance) {
  if (!has_encoder<F, Rule, T>() || !has_contiguous_rows(out.codes) || weights.columns == 0) return false;
  if constexpr (in_groups<F>) {
    if (!has_contiguous_rows(out.scales)) return false;
    std::atomic<bool> finite{true};
    for_block_rows<F>(executor, weights.rows, [&](std::size_t begin, std::size_t end) {
      if (!encode_group_rows<F, Rule>(weights, importance, out, begin, end)) finite = false;
    });
    return finite;
  } else if constexpr (in_runs<F>) {
    return code_all_runs<F, chooses<F, Rule>>(weights, out.scales, executor,
                                              [&] { return run_writer<F, T>(out.codes); });
  } else {
    return false;
  }
}

/// Decodes with kernels to targets that `make` makes, one per range of rows; false, with nothing done, if there are
/// none for this case.
template <format F, class Target, weight_type T, executor Executor, class Make>
bool decode_with_kernels(const_quantized_view<F> q, matrix_view<T const> weights, Executor& executor, Make&& make) {
  if (!has_decoder<F, typename Target::value_type>() || !has_contiguous_rows(q.codes) || q.columns == 0) return false;
  if constexpr (nested_format<F>) {
    return false;
  } else {
    if constexpr (in_groups<F>) {
      if (!has_contiguous_rows(q.scales)) return false;
    }
    executor.for_ranges(q.rows, [&](std::size_t begin, std::size_t end) {
      contiguous_rows<T> source(weights);
      Target target = make();
      if constexpr (in_groups<F>) {
        decode_group_rows<F>(q, source, begin, end, target);
      } else {
        decode_run_rows<F>(q, source, begin, end, target);
      }
    });
    return true;
  }
}

/// Encodes and decodes with kernels in one pass, to targets that `make` makes. False, with some rows done, if there are
/// none for this case or a weight is not finite.
template <format F, scale_rule Rule, class Target, weight_type T, executor Executor, class Make>
bool roundtrip_with_kernels(matrix_view<T const> weights, float global_scale, Executor& executor,
                            matrix_view<float const> importance, Make&& make) {
  if (!has_encoder<F, Rule, T>() || !has_decoder<F, typename Target::value_type>() || weights.columns == 0)
    return false;
  if constexpr (in_groups<F>) {
    std::atomic<bool> finite{true};
    executor.for_ranges(weights.rows, [&](std::size_t begin, std::size_t end) {
      Target target = make();
      if (!roundtrip_group_rows<F, Rule>(weights, importance, global_scale, begin, end, target)) finite = false;
    });
    return finite;
  } else if constexpr (in_runs<F>) {
    storage_shape const shape = stored<F>(weights.rows, weights.columns);
    std::vector<typename F::scale::code_type> scales(shape.scale_rows * shape.scale_columns);
    return code_all_runs<F, chooses<F, Rule>>(weights, view(std::span(scales), shape.scale_rows, shape.scale_columns),
                                              executor, [&] { return run_roundtrip<F, T, Target>(make()); });
  } else {
    return false;
  }
}

}  // namespace prismaquant::detail

namespace prismaquant {

/// Largest magnitude of a matrix, `block_amax` at the speed of memory: what global scales are made of.
template <weight_type T, executor Executor = serial_executor>
float largest_magnitude(matrix_view<T const> weights, Executor&& executor = {}) {
  if (detail::largest_finder<T>() == nullptr || weights.columns == 0) return block_amax(weights);
  auto const magnitude = std::bit_cast<float>(detail::largest_bits(weights, executor));
  return is_finite(magnitude) ? magnitude : block_amax(weights);  // which skips NaN
}

}  // namespace prismaquant
