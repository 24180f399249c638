/// @file
/// Coordinate descent over rows that depend on each other: lanes are columns, rows follow one another.
#pragma once

#include "prismaquant/solver/kernels/nearest.hpp"
#include "prismaquant/solver/kernels/tile.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// out += factor * row, over `n` (a multiple of 16) floats.
PRISMAQUANT_INLINE void add_row(float factor, float const* row, std::size_t n, float* out) {
  f32 const minus = splat(-factor);
  for (std::size_t i = 0; i < n; i += 16)
    store(out + i, subtract_product(load<f32>(out + i), minus, load<f32>(row + i)));
}

/// One sweep over the columns of one row, one after the other, each to the best value while all others stay. `weight`
/// is the diagonal element of G: `slopes` and curvatures carry it. Sixteen columns are looked at together; where one
/// changes, those after it are looked at again.
template <class Element>
PRISMAQUANT_INLINE std::size_t sweep_row(panel const& p, float weight, float* slopes, float* values,
                                         float const* scales, float const* curvatures) {
  std::size_t changes = 0;
  for (std::size_t first = 0; first < p.columns; first += 16) {
    f32 const scale = load<f32>(scales + first), inverse_scale = splat(1.0f) / scale;
    f32 const curvature = load<f32>(curvatures + first) * splat(weight), inverse = splat(1.0f) / curvature;
    for (std::size_t lane = 0; lane < 16;) {
      f32 const slope = load<f32>(slopes + first), value = load<f32>(values + first);
      f32 const best = nearest_value<Element>::of((value - slope * inverse) * inverse_scale) * scale;
      f32 const step = best - value;
      // The objective changes by step * (curvature * step + 2 slope): by less than its rounding is not worth a step.
      i32 const better = less(step * (curvature * step * splat(1.0f + 1e-6f) + (slope + slope)), splat(0.0f));
      if (is_zero(better)) break;
      std::int32_t is_better[16];
      float moved[16], steps[16];
      store(is_better, better);
      while (lane < 16 && is_better[lane] == 0) ++lane;
      if (lane == 16) break;
      store(moved, best);
      store(steps, step);
      values[first + lane] = moved[lane];
      add_row(weight * steps[lane], p.h + (first + lane) * p.columns, p.columns, slopes);
      ++changes;
      ++lane;
    }
  }
  return changes;
}

/// Lowers tr(D' G D H) over the panel, D = values - target. Returns how many values changed.
template <class Element>
inline std::size_t descend_panel(panel const& p) noexcept {
  std::size_t changes = 0;
  constexpr std::size_t most_columns = 256;
  alignas(64) float curvatures[most_columns];
  for (std::size_t c = 0; c < p.columns; ++c) curvatures[c] = p.h[c * p.columns + c];
  for (std::size_t row = 0; row < p.rows; ++row) {
    float const* const g = p.g + static_cast<std::ptrdiff_t>(row) * p.g_stride;
    float* const slopes = p.slopes + row * p.columns;
    float* const push = p.pushes + row * p.columns;
    for (std::size_t c = 0; c < p.columns; c += 16) store(push + c, load<f32>(slopes + c));
    std::size_t in_row = 0;
    for (std::size_t sweep = 0, changed = 1; changed != 0 && sweep < p.sweeps; ++sweep) {
      in_row += changed =
          sweep_row<Element>(p, g[row], slopes, p.values + row * p.columns, p.scales + row * p.columns, curvatures);
    }
    f32 const inverse = splat(1.0f / g[row]);
    for (std::size_t c = 0; c < p.columns; c += 16) {
      store(push + c, (load<f32>(slopes + c) - load<f32>(push + c)) * inverse);
    }
    changes += in_row;
    if (in_row == 0) continue;
    for (std::size_t next = row + 1; next < p.rows; ++next) {
      add_row(g[next], push, p.columns, p.slopes + next * p.columns);
    }
  }
  return changes;
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
