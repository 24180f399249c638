/// @file
/// Coordinate descent over one tile of rows that also refits the scale of each group.
#pragma once

#include "prismaquant/codec/kernels/scales.hpp"
#include "prismaquant/formats/format.hpp"
#include "prismaquant/solver/kernels/descent.hpp"

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

/// Moves the scale of one group of 16 rows to the best that can be stored while the codes stay, where that lowers the
/// objective. `gain` and `h` are those of the group's columns. Returns the lanes that moved.
template <class F>
PRISMAQUANT_INLINE i32 refit_group(float const* gain, float const* h, tile const& t, std::size_t first,
                                   std::size_t lane) {
  constexpr std::size_t group = F::block_shape::columns;
  using element = nearest_value<typename F::element>;
  float* const at_scale = t.scales + first / group * tile_rows + lane;
  f32 const scale = load<f32>(at_scale), inverse = splat(1.0f) / scale;
  alignas(64) float units[group * 16];
  f32 slope = splat(0.0f), curvature = splat(0.0f);
  for (std::size_t c = 0; c < group; ++c) {
    f32 const unit = element::of(load<f32>(t.values + (first + c) * tile_rows + lane) * inverse);
    store(units + c * 16, unit);
    slope = slope + load<f32>(gain + c * tile_rows + lane) * unit;
    f32 sum = splat(0.5f * h[c * group + c]) * unit;
    for (std::size_t k = 0; k < c; ++k) sum = sum + splat(h[c * group + k]) * load<f32>(units + k * 16);
    curvature = curvature + sum * unit;
  }
  curvature = curvature + curvature;
  f32 const wanted = scale + slope / curvature;
  i32 const usable = less(splat(0.0f), wanted) & less(wanted, splat(1e30f)) & less(splat(0.0f), curvature);
  f32 const refit = nearest_scale<typename F::scale>::of(select(usable, wanted, scale), splat(t.global_scale));
  f32 const step = refit - scale;
  // Scales that are not quantized come closer and closer: below this nothing is gained but sweeps.
  f32 const least = splat(-1e-7f) * curvature * scale * scale;
  i32 const better = usable & less(step * (curvature * step * splat(1.0f + 1e-6f) - (slope + slope)), least);
  if (is_zero(better)) return better;
  f32 const chosen = select(better, refit, scale);
  store(at_scale, chosen);
  for (std::size_t c = 0; c < group; ++c) {
    std::size_t const at_column = (first + c) * tile_rows + lane;
    f32 const value = load<f32>(t.values + at_column);
    f32 const moved = select(better, load<f32>(units + c * 16) * chosen, value);
    store(t.values + at_column, moved);
    store(t.weights + at_column, load<f32>(t.weights + at_column) + (moved - value));
  }
  return better;
}

/// `descend` with a `refit_group` after the columns of each group. `t.group` is that of the format; columns are whole
/// groups.
template <class F>
inline std::size_t descend_and_refit(packed_square const& h, tile const& t) noexcept {
  constexpr std::size_t group = F::block_shape::columns;
  alignas(64) float gain[group * tile_rows];  // -(d h), what is left to gain
  alignas(64) float block[group * group];
  i32 changed = splat(0);
  for (std::size_t first = 0; first < h.columns; first += group) {
    for (float& x : gain) x = 0.0f;
    for (std::size_t strip = 0; strip < group; strip += strip_width) {
      float const* const factors = h.strips + (first + strip) * h.columns;
      subtract_strip(t.weights, factors, h.columns, gain + strip * tile_rows);
      for (std::size_t row = 0; row < group; ++row) {
        for (std::size_t c = 0; c < strip_width; ++c) {
          block[row * group + strip + c] = factors[(first + row) * strip_width + c];
        }
      }
    }
    for (std::size_t c = 0; c < group; ++c) {
      changed = changed + descend_column<typename F::element, group>(gain, block + c * group, t, first, c, 0);
    }
    for (std::size_t lane = 0; lane < tile_rows; lane += 16) {
      changed = changed - refit_group<F>(gain, block, t, first, lane);
    }
  }
  return sum_of_lanes(changed);
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
