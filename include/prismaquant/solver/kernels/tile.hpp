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

}  // namespace prismaquant
