/// @file
/// The scale of a group in closed form, codes given.
#pragma once

#include "prismaquant/codec/kernels/scales.hpp"
#include "prismaquant/formats/format.hpp"
#include "prismaquant/solver/kernels/nearest.hpp"
#include "prismaquant/solver/kernels/strip.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// Effective scale that a scale codec can store nearest to a positive `s`.
template <class Scale>
struct nearest_scale;

template <>
struct nearest_scale<e4m3_scale> {
  PRISMAQUANT_INLINE static f32 of(f32 s, f32 global_scale) {
    i32 const code = max(e4m3_lanes::encode_magnitude(s * global_scale), splat(1));
    return scale_lanes<e4m3_scale>::decode(min(code, splat(e4m3_scale::max_code)), global_scale);
  }
};
template <int ElementMaxExponent, int RoundingBits>
struct nearest_scale<e8m0_scale<ElementMaxExponent, RoundingBits>> {
  using scale = e8m0_scale<ElementMaxExponent, RoundingBits>;
  PRISMAQUANT_INLINE static f32 of(f32 s, f32 global_scale) {
    i32 const code = shift_right(bits(s) + splat(1 << 22), 23);  // 1.5 is as far from 1 as from 2
    return scale_lanes<scale>::decode(min(max(code, splat(1)), splat(scale::max_code)), global_scale);
  }
};
template <>
struct nearest_scale<bf16_scale> {
  PRISMAQUANT_INLINE static f32 of(f32 s, f32 global_scale) {
    return scale_lanes<bf16_scale>::decode(max(bf16_lanes::encode(s), splat(1)), global_scale);
  }
};
template <>
struct nearest_scale<float32_scale> {
  PRISMAQUANT_INLINE static f32 of(f32 s, f32 /*global_scale*/) { return s; }
};

/// One row of a panel.
struct strip_row {
  float weight;  ///< diagonal element of G: the slopes carry it
  float* slopes;
  float* values;
  float* scales;
};

/// out += factor * row, over `n` (a multiple of 16) floats.
PRISMAQUANT_INLINE void add_row(float factor, float const* row, std::size_t n, float* out) {
  f32 const minus = splat(-factor);
  for (std::size_t i = 0; i < n; i += 16)
    store(out + i, subtract_product(load<f32>(out + i), minus, load<f32>(row + i)));
}

/// Sum over 16 lanes, in the same order on every instruction set.
PRISMAQUANT_INLINE float sum_of_lanes(f32 x) {
  float lanes[16];
  store(lanes, x);
  for (std::size_t half = 8; half != 0; half /= 2) {
    for (std::size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

/// Moves the scale of the group that starts at column `first` to the best that can be stored while the codes stay,
/// where that lowers the objective.
template <class F>
struct group_refit {
  static constexpr std::size_t group = F::block_shape::columns;
  PRISMAQUANT_INLINE static bool of(strip_panel const& p, strip_row const& row, std::size_t first) {
    static_assert(group % 16 == 0 && group <= strip_columns);
    float const scale = row.scales[first / group];
    alignas(64) float units[group];
    f32 slope_sum = splat(0.0f);
    for (std::size_t c = 0; c < group; c += 16) {
      f32 const unit = nearest_value<typename F::element>::of(load<f32>(row.values + first + c) * splat(1.0f / scale));
      store(units + c, unit);
      slope_sum = slope_sum + load<f32>(row.slopes + first + c) * unit;
    }
    f32 products[group / 16] = {};  // units H
    for (std::size_t c = 0; c < group; ++c) {
      if (units[c] == 0.0f) continue;
      f32 const minus = splat(-units[c]);
      float const* const h = p.h + (first + c) * strip_columns + first;
      for (std::size_t k = 0; k < group / 16; ++k) {
        products[k] = subtract_product(products[k], minus, load<f32>(h + k * 16));
      }
    }
    f32 curvature_sum = splat(0.0f);
    for (std::size_t k = 0; k < group / 16; ++k)
      curvature_sum = curvature_sum + products[k] * load<f32>(units + k * 16);
    float const slope = sum_of_lanes(slope_sum), curvature = sum_of_lanes(curvature_sum) * row.weight;
    float const wanted = scale - slope / curvature;
    if (!(wanted > 0.0f && wanted < 1e30f && curvature > 0.0f)) return false;
    alignas(64) float nearest[16];
    store(nearest, nearest_scale<typename F::scale>::of(splat(wanted), splat(p.global_scale)));
    float const refit = nearest[0], step = refit - scale;
    // Scales that are not quantized come closer and closer: below this nothing is gained but sweeps.
    float const least = -1e-7f * curvature * scale * scale;
    if (!(step * (curvature * step * (1.0f + 1e-6f) + 2.0f * slope) < least)) return false;
    row.scales[first / group] = refit;
    for (std::size_t c = 0; c < group; ++c) {
      float const moved = units[c] * refit, change = moved - row.values[first + c];
      row.values[first + c] = moved;
      if (change != 0.0f) add_row(row.weight * change, p.h + (first + c) * strip_columns, p.columns, row.slopes);
    }
    return true;
  }
};

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
