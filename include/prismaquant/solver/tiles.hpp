/// @file
/// Brings the rows of a matrix to the tile kernels of the GPTQ loop.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "prismaquant/core/executor.hpp"
#include "prismaquant/core/matrix_view.hpp"
#include "prismaquant/solver/aligned_floats.hpp"
#include "prismaquant/solver/kernels/tile.hpp"

namespace prismaquant::detail {

/// An upper triangle as tile kernels read it. Columns that fill up the last strip are those of the identity.
class triangle_strips {
 public:
  template <executor Executor>
  triangle_strips(matrix_view<float const> u, Executor& executor)
      : columns_((u.columns + strip_width - 1) / strip_width * strip_width),
        strips_(packed_triangle::begin(columns_ / strip_width)),
        inverse_diagonal_(columns_) {
    executor.for_ranges(columns_ / strip_width, [&](std::size_t begin, std::size_t end) {
      for (std::size_t s = begin; s < end; ++s) {
        float* out = strips_.data() + packed_triangle::begin(s);
        for (std::size_t row = 0; row < (s + 1) * strip_width; ++row) {
          for (std::size_t column = s * strip_width; column < (s + 1) * strip_width; ++column) {
            float const padding = row == column ? 1.0f : 0.0f;
            *out++ = std::max(row, column) < u.columns ? u(row, column) : padding;
          }
        }
      }
    });
    for (std::size_t c = 0; c < columns_; ++c) inverse_diagonal_.data()[c] = c < u.columns ? 1.0f / u(c, c) : 1.0f;
  }

  packed_triangle view() const { return {strips_.data(), inverse_diagonal_.data(), columns_}; }

 private:
  std::size_t columns_;
  aligned_floats strips_, inverse_diagonal_;
};

/// The matrices of a GPTQ loop and the order of their columns: column c of the triangle is column order[c] of the
/// weights. `scales` [rows, groups of `group` columns] are effective scales.
struct gptq_rows {
  matrix_view<float const> weights;
  std::span<std::size_t const> order;
  matrix_view<float> values;
  matrix_view<float> scales;
  std::size_t group;
  float global_scale;
  bool chooses_scales;                  ///< the order then keeps groups together
  matrix_view<float const> zeros = {};  ///< like `scales`; empty where the format has none
};

inline void load_tile(gptq_rows const& m, std::size_t first, std::size_t count, std::size_t columns, tile const& t) {
  std::fill_n(t.weights, columns * tile_rows, 0.0f);
  std::size_t const n = m.order.size();
  for (std::size_t c0 = 0; c0 < n; c0 += 16) {  // few enough columns to stay in the first-level cache
    std::size_t const c1 = std::min(c0 + 16, n);
    for (std::size_t r = 0; r < count; ++r) {
      for (std::size_t c = c0; c < c1; ++c) t.weights[c * tile_rows + r] = m.weights(first + r, m.order[c]);
    }
  }
  if (m.chooses_scales) return;
  std::fill_n(t.scales, (columns + t.group - 1) / t.group * tile_rows, 1.0f);
  for (std::size_t c = 0; c < n; c += t.group) {
    for (std::size_t r = 0; r < count; ++r) {
      t.scales[c / t.group * tile_rows + r] = m.scales(first + r, m.order[c] / m.group);
    }
  }
  if (t.zeros == nullptr) return;
  std::fill_n(t.zeros, (columns + t.group - 1) / t.group * tile_rows, 0.0f);
  for (std::size_t c = 0; c < n; c += t.group) {
    for (std::size_t r = 0; r < count; ++r) {
      t.zeros[c / t.group * tile_rows + r] = m.zeros(first + r, m.order[c] / m.group);
    }
  }
}

inline void store_tile(gptq_rows const& m, std::size_t first, std::size_t count, tile const& t) {
  std::size_t const n = m.order.size();
  for (std::size_t c0 = 0; c0 < n; c0 += 16) {
    std::size_t const c1 = std::min(c0 + 16, n);
    for (std::size_t r = 0; r < count; ++r) {
      for (std::size_t c = c0; c < c1; ++c) m.values(first + r, m.order[c]) = t.values[c * tile_rows + r];
    }
  }
  if (!m.chooses_scales) return;
  for (std::size_t c = 0; c < n; c += t.group) {
    for (std::size_t r = 0; r < count; ++r) {
      m.scales(first + r, m.order[c] / m.group) = t.scales[c / t.group * tile_rows + r];
    }
  }
}

/// Whether columns of a group stand together in `order`, in whole groups.
inline bool keeps_groups(std::span<std::size_t const> order, std::size_t group) {
  for (std::size_t c = 0; c < order.size(); ++c) {
    if (order[c] / group != order[c - c % group] / group) return false;
  }
  return true;
}

/// Runs `kernel` over all rows, tile by tile. Allocates 2 x 48 x columns floats per range of the executor.
template <executor Executor>
void run_tiles(gptq_tile_kernel* kernel, packed_triangle const& u, gptq_rows const& m, Executor& executor) {
  std::size_t const group = m.chooses_scales || keeps_groups(m.order, m.group) ? m.group : 1;
  std::size_t const tiles = (m.weights.rows + tile_rows - 1) / tile_rows;
  executor.for_ranges(tiles, [&](std::size_t begin, std::size_t end) {
    aligned_floats weights(u.columns * tile_rows), values(u.columns * tile_rows);
    std::size_t const scale_count = (u.columns + group - 1) / group * tile_rows;
    aligned_floats scales(scale_count), zeros(m.zeros.data != nullptr ? scale_count : 0);
    tile const t{weights.data(), values.data(),  scales.data(),
                 group,          m.global_scale, m.zeros.data != nullptr ? zeros.data() : nullptr};
    for (std::size_t i = begin; i < end; ++i) {
      std::size_t const first = i * tile_rows, count = std::min(tile_rows, m.weights.rows - first);
      load_tile(m, first, count, u.columns, t);
      kernel(u, t);
      store_tile(m, first, count, t);
    }
  });
}

}  // namespace prismaquant::detail
