/// @file
/// Coordinate descent over some rows of a strip of columns.
#pragma once

#include <type_traits>

#include "prismaquant/solver/kernels/nearest.hpp"
#include "prismaquant/solver/kernels/refit.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// One sweep over the columns `first` .. `last` - 1 of one row, one after the other, each to the best value while all
/// others stay. Sixteen columns are looked at together; where one changes, those after it are looked at again.
template <class Element>
PRISMAQUANT_INLINE std::size_t descend_columns(strip_panel const& p, strip_row const& row, std::size_t first,
                                               std::size_t last, float const* curvatures) {
  std::size_t changes = 0;
  for (std::size_t c = first; c < last; c += 16) {
    f32 const scale = splat(row.scales[c / p.group]), inverse_scale = splat(1.0f) / scale;
    f32 const curvature = load<f32>(curvatures + c) * splat(row.weight), inverse = splat(1.0f) / curvature;
    for (std::size_t lane = 0; lane < 16;) {
      f32 const slope = load<f32>(row.slopes + c), value = load<f32>(row.values + c);
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
      row.values[c + lane] = moved[lane];
      add_row(row.weight * steps[lane], p.h + (c + lane) * strip_columns, p.columns, row.slopes);
      ++changes;
      ++lane;
    }
  }
  return changes;
}

/// Lowers tr(D' G D H) over the panel, D = values - target, row after row. With `Refit` also the scale of each group
/// after its columns.
template <class Element, class Refit>
inline std::size_t descend_strip(strip_panel const& p) noexcept {
  std::size_t changes = 0;
  alignas(64) float curvatures[strip_columns];
  for (std::size_t c = 0; c < strip_columns; ++c) curvatures[c] = p.h[c * strip_columns + c];
  for (std::size_t r = 0; r < p.rows; ++r) {
    auto const at = static_cast<std::ptrdiff_t>(r);
    float const* const g = p.g == nullptr ? nullptr : p.g + at * p.g_stride;
    strip_row const row{g == nullptr ? 1.0f : g[r], p.slopes + r * strip_columns, p.values + at * p.value_stride,
                        p.scales + at * p.scale_stride};
    float* const steps = p.steps + r * strip_columns;
    for (std::size_t c = 0; c < p.columns; c += 16) store(steps + c, load<f32>(row.values + c));
    float* const push = p.pushes + r * strip_columns;
    for (std::size_t c = 0; g != nullptr && c < p.columns; c += 16) store(push + c, load<f32>(row.slopes + c));
    std::size_t in_row = 0;
    for (std::size_t sweep = 0, changed = 1; changed != 0 && sweep < p.sweeps; ++sweep) {
      changed = 0;
      if constexpr (std::is_void_v<Refit>) {
        changed = descend_columns<Element>(p, row, 0, p.columns, curvatures);
      } else {
        for (std::size_t first = 0; first < p.columns; first += Refit::group) {
          changed += descend_columns<Element>(p, row, first, first + Refit::group, curvatures);
          changed += Refit::of(p, row, first) ? 1u : 0u;
        }
      }
      in_row += changed;
    }
    for (std::size_t c = 0; c < p.columns; c += 16) store(steps + c, load<f32>(row.values + c) - load<f32>(steps + c));
    changes += in_row;
    if (g == nullptr) continue;
    f32 const inverse = splat(1.0f / row.weight);
    for (std::size_t c = 0; c < p.columns; c += 16) {
      store(push + c, (load<f32>(row.slopes + c) - load<f32>(push + c)) * inverse);
    }
    if (in_row == 0) continue;
    for (std::size_t next = r + 1; next < p.rows; ++next) {
      add_row(g[next], push, p.columns, p.slopes + next * strip_columns);
    }
  }
  return changes;
}

/// slopes += steps h. A part of H stays in the second-level cache for all rows; slopes are loaded once for all steps of
/// their row.
inline void spread_steps(strip_steps const& s) noexcept {
  constexpr std::size_t part = 1024, registers = 4, width = 16 * registers;
  for (std::size_t begin = 0; begin < s.columns; begin += part) {
    std::size_t const end = begin + part < s.columns ? begin + part : s.columns;
    for (std::size_t r = 0; r < s.rows; ++r) {
      float const* const steps = s.steps + r * strip_columns;
      float factors[strip_columns];
      std::size_t places[strip_columns], count = 0;
      for (std::size_t c = 0; c < strip_columns; ++c) {
        factors[count] = -steps[c];
        places[count] = c * s.columns;
        count += steps[c] != 0.0f ? 1u : 0u;
      }
      if (count == 0) continue;
      float* const out = s.slopes + r * s.columns;
      std::size_t i = begin;
      for (; i + width <= end; i += width) {
        f32 sums[registers];
        for (std::size_t k = 0; k < registers; ++k) sums[k] = load<f32>(out + i + k * 16);
        for (std::size_t j = 0; j < count; ++j) {
          f32 const factor = splat(factors[j]);
          float const* const h = s.h + places[j] + i;
          for (std::size_t k = 0; k < registers; ++k) {
            sums[k] = subtract_product(sums[k], factor, load<f32>(h + k * 16));
          }
        }
        for (std::size_t k = 0; k < registers; ++k) store(out + i + k * 16, sums[k]);
      }
      for (; i < end; i += 16) {
        f32 sum = load<f32>(out + i);
        for (std::size_t j = 0; j < count; ++j) {
          sum = subtract_product(sum, splat(factors[j]), load<f32>(s.h + places[j] + i));
        }
        store(out + i, sum);
      }
    }
  }
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
