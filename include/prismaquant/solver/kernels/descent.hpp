/// @file
/// Coordinate descent over one tile of rows: one sweep over all columns.
#pragma once

#include "prismaquant/solver/kernels/gptq.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// Moves column `first` + `c` of all rows to its best value, and brings `gain`, -(d h) of `Width` columns from `first`
/// on, up to date from the column `first` + `stale` on. `h` is the row of that column, its `Width` elements from column
/// `first` on. Returns counts.
template <class Element, std::size_t Width>
PRISMAQUANT_INLINE i32 descend_column(float* gain, float const* h, tile const& t, std::size_t first, std::size_t c,
                                      std::size_t stale) {
  i32 changed = splat(0);
  f32 const curvature = splat(h[c]), inverse = splat(1.0f / h[c]);
  for (std::size_t lane = 0; lane < tile_rows; lane += 16) {
    std::size_t const at_column = (first + c) * tile_rows + lane;
    f32 const slope = load<f32>(gain + c * tile_rows + lane), value = load<f32>(t.values + at_column);
    f32 const scale = load<f32>(t.scales + (first + c) / t.group * tile_rows + lane);
    f32 const best = rounded<Element>(value + slope * inverse, splat(1.0f) / scale, scale);
    f32 const step = best - value;
    // The objective changes by step * (curvature * step - 2 gain): by less than its rounding is not worth a step.
    f32 const change = step * (curvature * step * splat(1.0f + 1e-6f) - (slope + slope));
    i32 const better = less(change, splat(0.0f));
    f32 const taken = select(better, step, splat(0.0f));
    changed = changed - better;
    store(t.values + at_column, select(better, best, value));
    store(t.weights + at_column, load<f32>(t.weights + at_column) + taken);
    for (std::size_t next = stale; next < Width; ++next) {
      float* const out = gain + next * tile_rows + lane;
      store(out, subtract_product(load<f32>(out), taken, splat(h[next])));
    }
  }
  return changed;
}

PRISMAQUANT_INLINE std::size_t sum_of_lanes(i32 counts) {
  std::int32_t lanes[16];
  store(lanes, counts);
  std::size_t sum = 0;
  for (std::int32_t lane : lanes) sum += static_cast<std::size_t>(lane);
  return sum;
}

/// Lowers d h d' of each row d = value - target, one element after the other, to the value on the grid that is best for
/// it while all others stay. The gradient of a strip is a product of all deviations with a strip of h, by the register
/// tiles of the GPTQ loop: it is never stored, and its rounding errors do not add up from sweep to sweep. Returns how
/// many values changed.
template <class Element>
inline std::size_t descend(packed_square const& h, tile const& t) noexcept {
  alignas(64) float gain[strip_width * tile_rows];  // -(d h), what is left to gain
  i32 changed = splat(0);
  for (std::size_t first = 0; first < h.columns; first += strip_width) {
    float const* const factors = h.strips + first * h.columns;
    for (float& x : gain) x = 0.0f;
    subtract_strip(t.weights, factors, h.columns, gain);
    for (std::size_t c = 0; c < strip_width; ++c) {
      float const* const row = factors + (first + c) * strip_width;
      changed = changed + descend_column<Element, strip_width>(gain, row, t, first, c, c + 1);
    }
  }
  return sum_of_lanes(changed);
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
