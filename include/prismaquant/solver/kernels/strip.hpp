/// @file
/// What the kernels of coordinate descent work on: some rows of a strip of columns. Lanes are columns.
///
/// The slopes (values - target) H of all columns are kept up to date. Inside of a strip that happens with every change,
/// because the next column needs it; what the changes mean to all other columns is added afterwards, for many rows
/// together, so that H is read a few times instead of once for every change.
#pragma once

#include <cstddef>

namespace prismaquant {

inline constexpr std::size_t strip_columns = 128;

/// Matrices are row-major. `columns` of h, slopes, steps and pushes, strip_columns in a row; those that fill up a strip
/// are those of the identity in `h`, zeros in all else.
struct strip_panel {
  float const* h;  ///< [strip_columns, strip_columns]
  float const* g;  ///< [rows, rows] weights of products of rows; null: rows do not depend on each other
  std::ptrdiff_t g_stride;
  std::size_t rows;
  std::size_t columns;  ///< a multiple of 16
  std::size_t sweeps;   ///< at most so many over each row before the next
  float* slopes;        ///< in and out: G (values - target) H
  float* values;        ///< in and out
  std::ptrdiff_t value_stride;
  float* scales;  ///< effective scale of each group; in, and out for kernels that refit them
  float const* zeros;
  std::ptrdiff_t scale_stride;  ///< of scales and zeros
  std::size_t group;            ///< columns that share a scale: a multiple of 16
  float global_scale;
  float* steps;   ///< out: change of the values
  float* pushes;  ///< out, with `g`: steps H
};

/// Returns how many values and scales changed.
using strip_kernel = std::size_t(strip_panel const&) noexcept;

/// slopes += steps h, where most steps are zero.
struct strip_steps {
  float const* steps;  ///< [rows, strip_columns]
  std::size_t rows;
  float const* h;       ///< [strip_columns or fewer, columns]: the rows of H that belong to the strip
  std::size_t columns;  ///< a multiple of 16; also the stride of `h` and `slopes`
  float* slopes;        ///< [rows, columns]
};

using spread_kernel = void(strip_steps const&) noexcept;

}  // namespace prismaquant
