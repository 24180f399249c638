/// @file
/// Brings matrices to the kernels of `codec/kernels/`, row by row. The codec asks here first and does the work itself
/// where the answer is no; the bytes are the same either way.
#pragma once

#include <algorithm>
#include <atomic>
#include <concepts>
#include <vector>

#include "prismaquant/codec/kernels/select.hpp"
#include "prismaquant/codec/quantized.hpp"
#include "prismaquant/core/executor.hpp"
#include "prismaquant/core/fp_environment.hpp"

namespace prismaquant::detail {

/// Rows of a matrix as contiguous memory: the matrix's own where it is contiguous, else a copy that lasts until the
/// next row is asked for.
template <class T>
class contiguous_rows {
 public:
  explicit contiguous_rows(matrix_view<T const> m) : m_(m) {
    if (!is_direct()) copy_.resize(m.columns);
  }

  T const* row(std::size_t r) {
    if (is_direct()) return &m_(r, 0);
    for (std::size_t c = 0; c < m_.columns; ++c) copy_[c] = m_(r, c);
    return copy_.data();
  }

 private:
  bool is_direct() const noexcept { return m_.column_stride == 1 || m_.columns <= 1; }

  matrix_view<T const> m_;
  std::vector<T> copy_;
};

template <class T>
bool has_contiguous_rows(matrix_view<T> const& m) noexcept {
  return m.column_stride == 1 || m.columns <= 1;
}

/// Outputs of more than 16 MiB are written past the caches: they would not be there when they are read.
template <class T>
bool is_larger_than_caches(matrix_view<T> const& m) noexcept {
  return m.rows * m.columns * sizeof(T) > std::size_t{16} << 20;
}

/// Groups along a row: one call per row.
template <weight_type T, class View, executor Executor>
bool encode_groups(encode_groups_kernel* kernel, matrix_view<T const> weights, View out, Executor&& executor) {
  if (weights.columns == 0) return true;
  std::atomic<bool> finite{true};
  bool const stream = is_larger_than_caches(out.codes);
  executor.for_ranges(weights.rows, [&](std::size_t begin, std::size_t end) {
    fp_environment_guard const guard;
    contiguous_rows<T> source(weights);
    for (std::size_t r = begin; r < end && finite.load(std::memory_order_relaxed); ++r) {
      if (!kernel(source.row(r), weights.columns, &out.codes(r, 0), &out.scales(r, 0), out.global_scale, stream))
        finite = false;
    }
  });
  return finite;
}

/// Blocks of block rows [begin, end): largest magnitude over the rows, scale, then the rows again. False if not finite.
template <format F, weight_type T>
bool encode_blocks(matrix_view<T const> weights, quantized_view<F> const& out, std::size_t begin, std::size_t end) {
  fp_environment_guard const guard;
  auto* const largest = largest_finder<T>();
  auto* const kernel = scaled_encoder<F, T>();
  bool const stream = is_larger_than_caches(out.codes);
  std::size_t const height = F::block_shape::rows != 0 ? F::block_shape::rows : weights.rows;
  std::size_t const width = F::block_shape::columns != 0 ? F::block_shape::columns : weights.columns;
  contiguous_rows<T> source(weights);
  std::vector<std::uint32_t> amax(out.scales.columns);
  for (std::size_t i = begin; i < end; ++i) {
    std::size_t const top = i * height;
    std::size_t const bottom = std::min(top + height, weights.rows);
    std::fill(amax.begin(), amax.end(), 0u);
    for (std::size_t r = top; r < bottom; ++r) {
      T const* const row = source.row(r);
      for (std::size_t j = 0, c = 0; c < weights.columns; ++j, c += width) {
        amax[j] = std::max(amax[j], largest(row + c, std::min(width, weights.columns - c)));
      }
    }
    for (std::size_t j = 0; j < amax.size(); ++j) {
      auto const magnitude = std::bit_cast<float>(amax[j]);
      if (!is_finite(magnitude)) return false;
      out.scales(i, j) = F::scale::from_amax(magnitude, full_scale<typename F::element>, out.global_scale);
    }
    for (std::size_t r = top; r < bottom; ++r) {
      T const* const row = source.row(r);
      for (std::size_t j = 0, c = 0; c < weights.columns; ++j, c += width) {
        kernel(row + c, std::min(width, weights.columns - c), F::scale::decode(out.scales(i, j), out.global_scale),
               &out.codes(r, c), stream);
      }
    }
  }
  return true;
}

/// Elements without scales: finite first, then the row.
template <format F, weight_type T>
bool encode_plain(matrix_view<T const> weights, quantized_view<F> const& out, std::size_t begin, std::size_t end) {
  fp_environment_guard const guard;
  auto* const largest = largest_finder<T>();
  auto* const kernel = scaled_encoder<F, T>();
  bool const stream = is_larger_than_caches(out.codes);
  contiguous_rows<T> source(weights);
  for (std::size_t r = begin; r < end; ++r) {
    T const* const row = source.row(r);
    if (!is_finite(std::bit_cast<float>(largest(row, weights.columns)))) return false;
    kernel(row, weights.columns, 1.0f, &out.codes(r, 0), stream);
  }
  return true;
}

/// One scale for the whole matrix: rows in parallel twice, first for the largest magnitude.
template <format F, weight_type T, executor Executor>
bool encode_tensor(matrix_view<T const> weights, quantized_view<F> const& out, Executor&& executor) {
  auto* const largest = largest_finder<T>();
  auto* const kernel = scaled_encoder<F, T>();
  bool const stream = is_larger_than_caches(out.codes);
  std::atomic<std::uint32_t> amax{0};
  executor.for_ranges(weights.rows, [&](std::size_t begin, std::size_t end) {
    fp_environment_guard const guard;
    contiguous_rows<T> source(weights);
    std::uint32_t mine = 0;
    for (std::size_t r = begin; r < end; ++r) mine = std::max(mine, largest(source.row(r), weights.columns));
    for (auto seen = amax.load(); seen < mine && !amax.compare_exchange_weak(seen, mine);) {
    }
  });
  auto const magnitude = std::bit_cast<float>(amax.load());
  if (!is_finite(magnitude)) return false;
  fp_environment_guard const guard;
  out.scales(0, 0) = F::scale::from_amax(magnitude, full_scale<typename F::element>, out.global_scale);
  float const scale = F::scale::decode(out.scales(0, 0), out.global_scale);
  executor.for_ranges(weights.rows, [&](std::size_t begin, std::size_t end) {
    fp_environment_guard const inner_guard;
    contiguous_rows<T> source(weights);
    for (std::size_t r = begin; r < end; ++r) kernel(source.row(r), weights.columns, scale, &out.codes(r, 0), stream);
  });
  return true;
}

/// Elements under scales of whole blocks, or without: the rule is that of the largest magnitude.
template <format F, weight_type T, executor Executor>
bool encode_scaled(matrix_view<T const> weights, quantized_view<F> const& out, Executor&& executor) {
  if (scaled_encoder<F, T>() == nullptr) return false;
  if constexpr (has_scales<F>) {
    if constexpr (F::block_shape::rows == 0 && F::block_shape::columns == 0)
      return encode_tensor(weights, out, executor);
  }
  std::atomic<bool> finite{true};
  executor.for_ranges(has_scales<F> ? out.scales.rows : weights.rows, [&](std::size_t begin, std::size_t end) {
    if constexpr (has_scales<F>) {
      if (!encode_blocks<F>(weights, out, begin, end)) finite = false;
    } else {
      if (!encode_plain<F>(weights, out, begin, end)) finite = false;
    }
  });
  return finite;
}

/// Encodes with kernels, which know default options only. False, with `out` unspecified, if there are none for this
/// case or a weight is not finite.
template <format F, scale_rule Rule, weight_type T, executor Executor>
bool encode_with_kernels(matrix_view<T const> weights, quantized_view<F> out, Executor&& executor) {
  if constexpr (!may_encode<F, Rule>) {
    return false;
  } else {
    if (!has_contiguous_rows(out.codes) || weights.columns == 0) return false;
    if constexpr (has_group_kernels<F>) {
      auto* const kernel = groups_encoder<F, Rule, T>();
      return kernel != nullptr && has_contiguous_rows(out.scales) && encode_groups(kernel, weights, out, executor);
    } else {
      return encode_scaled<F>(weights, out, executor);
    }
  }
}

/// Decodes with kernels; false, with nothing written, if there are none for this case.
template <format F, class Out, executor Executor>
bool decode_with_kernels(const_quantized_view<F> q, matrix_view<Out> out, Executor&& executor) {
  if constexpr (!may_decode<F, Out>) {
    return false;
  } else {
    if (!has_contiguous_rows(q.codes) || !has_contiguous_rows(out) || q.columns == 0) return false;
    auto* const groups = groups_decoder<F, Out>();
    auto* const scaled = scaled_decoder<F, Out>();
    if (groups == nullptr && scaled == nullptr) return false;
    if (groups != nullptr && !has_contiguous_rows(q.scales)) return false;
    bool const stream = is_larger_than_caches(out);
    executor.for_ranges(q.rows, [&](std::size_t begin, std::size_t end) {
      fp_environment_guard const guard;
      std::size_t const width = F::block_shape::columns != 0 ? F::block_shape::columns : q.columns;
      for (std::size_t r = begin; r < end; ++r) {
        if constexpr (has_group_kernels<F>) {
          groups(&q.codes(r, 0), &q.scales(r, 0), q.columns, q.global_scale, &out(r, 0), stream);
        } else if constexpr (!has_scales<F>) {
          scaled(&q.codes(r, 0), q.columns, 1.0f, &out(r, 0), stream);
        } else {
          std::size_t const i = F::block_shape::rows != 0 ? r / F::block_shape::rows : 0;
          for (std::size_t j = 0, c = 0; c < q.columns; ++j, c += width) {
            scaled(&q.codes(r, c), std::min(width, q.columns - c), F::scale::decode(q.scales(i, j), q.global_scale),
                   &out(r, c), stream);
          }
        }
      }
    });
    return true;
  }
}

}  // namespace prismaquant::detail

namespace prismaquant {

/// Largest magnitude of a matrix, `block_amax` at the speed of memory: what global scales are made of.
template <weight_type T, executor Executor = serial_executor>
float largest_magnitude(matrix_view<T const> weights, Executor&& executor = {}) {
  auto* const largest = detail::largest_finder<T>();
  if (largest == nullptr || !detail::has_contiguous_rows(weights)) return block_amax(weights);
  std::atomic<std::uint32_t> amax{0};
  executor.for_ranges(weights.rows, [&](std::size_t begin, std::size_t end) {
    fp_environment_guard const guard;
    std::uint32_t mine = 0;
    for (std::size_t r = begin; r < end; ++r) mine = std::max(mine, largest(&weights(r, 0), weights.columns));
    for (auto seen = amax.load(); seen < mine && !amax.compare_exchange_weak(seen, mine);) {
    }
  });
  auto const magnitude = std::bit_cast<float>(amax.load());
  return is_finite(magnitude) ? magnitude : block_amax(weights);  // which skips NaN
}

}  // namespace prismaquant
