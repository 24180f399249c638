/// @file
/// What the kernels of the GPTQ loop work on: a tile of rows, and the triangle packed for it.
///
/// The loop is left-looking: a column is brought up to date by all earlier errors when it is reached, so that weights
/// are read once and written once, and rows never meet. Lanes are rows. An element takes its updates one at a time, in
/// the order of the columns; so its bits depend neither on the width of strips nor on the size or order of tiles.
#pragma once

#include <cstddef>

#include "prismaquant/simd/target.hpp"

namespace prismaquant {

inline constexpr std::size_t tile_rows = 48;   ///< rows of a tile: three registers of AVX-512
inline constexpr std::size_t strip_width = 8;  ///< columns that are brought up to date together

/// The upper triangle U, in strips of `strip_width` columns: strip s holds rows 0 .. (s + 1) * strip_width - 1 of its
/// columns, `strip_width` floats each. Columns are padded to a multiple of `strip_width`.
struct packed_triangle {
  float const* strips;
  float const* inverse_diagonal;  ///< 1 / U[c, c]
  std::size_t columns;            ///< padded

  /// Floats before strip `s`.
  PRISMAQUANT_INLINE static constexpr std::size_t begin(std::size_t s) {
    return strip_width * strip_width * (s * (s + 1) / 2);
  }
};

/// A symmetric matrix in strips: strip s holds columns 8 s .. 8 s + 7 of all rows, `strip_width` floats each. Padded.
struct packed_square {
  float const* strips;
  std::size_t columns;
};

/// One tile. All arrays hold `tile_rows` floats per column or group of `group` columns.
struct tile {
  float* weights;      ///< in: weights; out: errors divided by the diagonal of U
  float* values;       ///< out: the weights rounded, on the grid of the format under their scale
  float* scales;       ///< effective scales per group: in, or out where they are chosen in the loop
  std::size_t group;   ///< columns that share a scale
  float global_scale;  ///< of formats that have one
  float* zeros;        ///< like `scales`: the element that stands for zero; null where the format has none
};

using gptq_tile_kernel = void(packed_triangle const&, tile const&) noexcept;

/// `weights` of the tile are deviations of the values from their target; both are in and out.
using descent_tile_kernel = std::size_t(packed_square const&, tile const&) noexcept;

/// Rows that are coupled by G, a few columns of each. Row-major, `columns` (a multiple of 16) floats per row. Columns
/// that fill up have scale 1, zeros in all else, and those of the identity in `h`.
struct panel {
  float const* h;           ///< [columns, columns]
  float const* g;           ///< [rows, rows]
  std::ptrdiff_t g_stride;  ///< from one row of `g` to the next
  std::size_t rows, columns;
  std::size_t sweeps;   ///< at most so many over each row before the next
  float* slopes;        ///< in and out: G (values - target) H
  float* values;        ///< in and out
  float const* scales;  ///< effective scale of each element
  float const* zeros;   ///< of each element, or null
  float* pushes;        ///< out: (change of the values) H
};

using panel_kernel = std::size_t(panel const&) noexcept;

}  // namespace prismaquant
