/// @file
/// Brings the rows of a matrix to the tile kernels of coordinate descent.
#pragma once

#include <atomic>

#include "prismaquant/solver/tiles.hpp"

namespace prismaquant::detail {

/// A symmetric matrix as tile kernels read it. Columns that fill up the last strip are those of the identity.
class square_strips {
 public:
  template <executor Executor>
  square_strips(matrix_view<float const> h, Executor& executor)
      : columns_((h.columns + strip_width - 1) / strip_width * strip_width), strips_(columns_ * columns_) {
    executor.for_ranges(columns_ / strip_width, [&](std::size_t begin, std::size_t end) {
      float* out = strips_.data() + begin * strip_width * columns_;
      for (std::size_t s = begin; s < end; ++s) {
        for (std::size_t row = 0; row < columns_; ++row) {
          for (std::size_t column = s * strip_width; column < (s + 1) * strip_width; ++column) {
            float const padding = row == column ? 1.0f : 0.0f;
            *out++ = std::max(row, column) < h.columns ? h(row, column) : padding;
          }
        }
      }
    });
  }

  packed_square view() const { return {strips_.data(), columns_}; }

 private:
  std::size_t columns_;
  aligned_floats strips_;
};

/// What coordinate descent did.
struct descent_result {
  std::size_t sweeps = 0;   ///< the most that any tile of rows took; the last one may have changed nothing
  std::size_t changes = 0;  ///< of values, over all sweeps
};

/// At most `sweeps` sweeps over each tile of rows; one that changes nothing ends them. `m.weights` is the target,
/// `m.values` is in and out, `m.order` names the columns of `h`. `m.scales` are given, and in and out where the kernel
/// refits them (`stores_scales`; the order then keeps groups together).
template <executor Executor>
descent_result run_descent(descent_tile_kernel* kernel, packed_square const& h, gptq_rows const& m, std::size_t sweeps,
                           Executor& executor, bool stores_scales = false) {
  std::size_t const group = keeps_groups(m.order, m.group) ? m.group : 1;
  std::size_t const tiles = (m.weights.rows + tile_rows - 1) / tile_rows;
  std::atomic<std::size_t> longest{0}, changes{0};
  executor.for_ranges(tiles, [&](std::size_t begin, std::size_t end) {
    aligned_floats const deviations(h.columns * tile_rows), values(h.columns * tile_rows);
    std::size_t const scale_count = (h.columns + group - 1) / group * tile_rows;
    aligned_floats const scales(scale_count), zeros(m.zeros.data != nullptr ? scale_count : 0);
    tile const t{deviations.data(), values.data(),
                 scales.data(),     group,
                 m.global_scale,    m.zeros.data != nullptr ? zeros.data() : nullptr};
    gptq_rows result = m;
    result.chooses_scales = stores_scales;
    gptq_rows current = m;
    current.weights = m.values;
    for (std::size_t i = begin; i < end; ++i) {
      std::size_t const first = i * tile_rows, count = std::min(tile_rows, m.weights.rows - first);
      load_tile(current, first, count, h.columns, t);  // values, to where deviations will be
      std::copy_n(deviations.data(), h.columns * tile_rows, values.data());
      load_tile(m, first, count, h.columns, t);
      for (std::size_t e = 0; e < h.columns * tile_rows; ++e)
        deviations.data()[e] = values.data()[e] - deviations.data()[e];
      std::size_t sweep = 0;
      for (std::size_t changed = 1; changed != 0 && sweep < sweeps; ++sweep) changes += changed = kernel(h, t);
      for (std::size_t seen = longest; seen < sweep && !longest.compare_exchange_weak(seen, sweep);) {
      }
      store_tile(result, first, count, t);
    }
  });
  return {longest, changes};
}

}  // namespace prismaquant::detail
