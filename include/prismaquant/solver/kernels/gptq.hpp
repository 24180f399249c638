/// @file
/// The loop of GPTQ over one tile of rows, with given scales, or with scales chosen as their group is reached.
#pragma once

#include "prismaquant/codec/kernels/scales.hpp"
#include "prismaquant/formats/format.hpp"
#include "prismaquant/solver/kernels/nearest.hpp"
#include "prismaquant/solver/kernels/tile.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// Takes the errors of columns 0 .. `done` - 1 off `Columns` columns of a strip, for `Lanes` x 16 rows, all sums in
/// registers. `u` points to those columns in the first row of the strip.
template <int Lanes, int Columns>
PRISMAQUANT_INLINE void subtract_errors(float const* errors, float const* u, std::size_t done, float* out) {
  f32 sum[Columns][Lanes];
  PRISMAQUANT_UNROLL
  for (int c = 0; c < Columns; ++c) {
    PRISMAQUANT_UNROLL
    for (int h = 0; h < Lanes; ++h) sum[c][h] = load<f32>(out + static_cast<std::size_t>(c) * tile_rows + 16 * h);
  }
  for (std::size_t k = 0; k < done; ++k) {
    f32 error[Lanes];
    PRISMAQUANT_UNROLL
    for (int h = 0; h < Lanes; ++h) error[h] = load<f32>(errors + k * tile_rows + 16 * h);
    __builtin_prefetch(u + (k + 64) * strip_width);  // the triangle streams through the caches once per tile
    PRISMAQUANT_UNROLL
    for (int c = 0; c < Columns; ++c) {
      f32 const factor = splat(u[k * strip_width + static_cast<std::size_t>(c)]);
      PRISMAQUANT_UNROLL
      for (int h = 0; h < Lanes; ++h) sum[c][h] = subtract_product(sum[c][h], error[h], factor);
    }
  }
  PRISMAQUANT_UNROLL
  for (int c = 0; c < Columns; ++c) {
    PRISMAQUANT_UNROLL
    for (int h = 0; h < Lanes; ++h) store(out + static_cast<std::size_t>(c) * tile_rows + 16 * h, sum[c][h]);
  }
}

/// The same for a whole strip and all rows, in the shapes that fill the registers: 24 of 32, 8 of 16.
inline void subtract_strip(float const* errors, float const* factors, std::size_t done, float* out) {
#if defined(PRISMAQUANT_AVX512)
  subtract_errors<3, 8>(errors, factors, done, out);
#else
  constexpr int columns = register_bytes == 32 ? 4 : 2;
  for (std::size_t h = 0; h < tile_rows; h += 16) {
    for (std::size_t c = 0; c < strip_width; c += columns) {
      subtract_errors<1, columns>(errors + h, factors + c, done, out + c * tile_rows + h);
    }
  }
#endif
}

/// Brings a strip up to date by the errors of columns 0 .. `done` - 1.
PRISMAQUANT_INLINE void update_strip(packed_triangle const& u, std::size_t strip, std::size_t done, float* weights) {
  subtract_strip(weights, u.strips + packed_triangle::begin(strip), done, weights + strip * strip_width * tile_rows);
}

/// Element U[row, column].
PRISMAQUANT_INLINE float at(packed_triangle const& u, std::size_t row, std::size_t column) {
  return u.strips[packed_triangle::begin(column / strip_width) + row * strip_width + column % strip_width];
}

/// The value on the grid under `scale` that is nearest to `w`.
template <class Element>
PRISMAQUANT_INLINE f32 rounded(f32 w, f32 inverse_scale, f32 scale) {
  return nearest_value<Element>::of(w * inverse_scale) * scale;
}

/// Rounds columns `first` .. `last` - 1 one after the other, each error spread over those that follow.
template <class Element>
PRISMAQUANT_INLINE void round_block(packed_triangle const& u, tile const& t, std::size_t first, std::size_t last) {
  for (std::size_t c = first; c < last; ++c) {
    f32 const inverse = splat(u.inverse_diagonal[c]);
    f32 error[3];
    PRISMAQUANT_UNROLL
    for (std::size_t h = 0; h < 3; ++h) {
      f32 const w = load<f32>(t.weights + c * tile_rows + 16 * h);
      f32 const scale = load<f32>(t.scales + c / t.group * tile_rows + 16 * h);
      f32 const value = rounded<Element>(w, splat(1.0f) / scale, scale);
      error[h] = (w - value) * inverse;
      store(t.values + c * tile_rows + 16 * h, value);
      store(t.weights + c * tile_rows + 16 * h, error[h]);
    }
    for (std::size_t next = c + 1; next < last; ++next) {
      f32 const factor = splat(at(u, c, next));
      float* const out = t.weights + next * tile_rows;
      PRISMAQUANT_UNROLL
      for (std::size_t h = 0; h < 3; ++h) {
        store(out + 16 * h, subtract_product(load<f32>(out + 16 * h), error[h], factor));
      }
    }
  }
}

/// Scales that a group may get in the loop: the window of the format's data-free sweep around the largest magnitude of
/// the compensated weights.
template <class Scale>
struct scale_window;

template <>
struct scale_window<e4m3_scale> {
  PRISMAQUANT_INLINE static void of(i32 amax, float element_max, f32 global_scale, i32& first, i32& last) {
    i32 const nearest = e4m3_lanes::encode_magnitude(global_scale * (floats(amax) / splat(element_max)));
    first = max(splat(1), nearest + splat(-3));
    last = min(splat(e4m3_scale::max_code), max(nearest + splat(7), splat(15)));
  }
};
template <int ElementMaxExponent, int RoundingBits>
struct scale_window<e8m0_scale<ElementMaxExponent, RoundingBits>> {
  using scale = e8m0_scale<ElementMaxExponent, RoundingBits>;
  PRISMAQUANT_INLINE static void of(i32 amax, float /*element_max*/, f32 /*global_scale*/, i32& first, i32& last) {
    first = scale_lanes<scale>::floor(amax);
    last = select(less(splat(0), amax), min(first + splat(1), splat(scale::max_code)), first);
  }
};

/// What rounding a group of 16 rows under scale `s` adds to the objective, exactly: the sum of (w - value)^2 / U[c,
/// c]^2 while each error is spread over the rest of the group. Inlined and unrolled where a group fits into registers.
template <class Element, int Group>
PRISMAQUANT_INLINE f32 rounding_loss(float const* weights, float const* triangle, float const* inverse_diagonal,
                                     f32 s) {
  f32 const inverse_scale = splat(1.0f) / s;
  f32 w[Group], sum = splat(0.0f);
  auto const step = [&](int c, auto&& for_following) PRISMAQUANT_INLINE_LAMBDA {
    f32 const error = (w[c] - rounded<Element>(w[c], inverse_scale, s)) * splat(inverse_diagonal[c]);
    sum = sum + error * error;
    for_following([&](int next) PRISMAQUANT_INLINE_LAMBDA {
      w[next] = subtract_product(w[next], error, splat(triangle[c * Group + next]));
    });
  };
  if constexpr (register_bytes == 64 && Group == 16) {
    PRISMAQUANT_UNROLL
    for (int c = 0; c < Group; ++c) w[c] = load<f32>(weights + c * int{tile_rows});
    PRISMAQUANT_UNROLL
    for (int c = 0; c < Group; ++c) {
      step(c, [&](auto const& body) PRISMAQUANT_INLINE_LAMBDA {
        PRISMAQUANT_UNROLL
        for (int next = c + 1; next < Group; ++next) body(next);
      });
    }
  } else {
    for (int c = 0; c < Group; ++c) w[c] = load<f32>(weights + c * int{tile_rows});
    for (int c = 0; c < Group; ++c) {
      step(c, [&](auto const& body) PRISMAQUANT_INLINE_LAMBDA {
        for (int next = c + 1; next < Group; ++next) body(next);
      });
    }
  }
  return sum;
}

/// Chooses the scales of one group of 16 rows: of all codes in the window the one of the smallest `rounding_loss`, the
/// first on ties.
template <class F>
PRISMAQUANT_INLINE f32 choose_scale(float const* weights, float const* triangle, float const* inverse_diagonal,
                                    f32 global_scale) {
  constexpr int group = static_cast<int>(F::block_shape::columns);
  using scale = scale_lanes<typename F::scale>;
  i32 amax = splat(0);
  for (int c = 0; c < group; ++c) amax = max(amax, magnitude_bits(load<f32>(weights + c * int{tile_rows})));
  i32 first, last;
  scale_window<typename F::scale>::of(amax, F::element::max_value, global_scale, first, last);
  i32 best_code = first;
  f32 best = splat(__builtin_inff());
  std::int32_t const steps = horizontal_max(last - first);
  for (std::int32_t step = 0; step <= steps; ++step) {
    i32 const code = min(first + splat(step), last);
    f32 const s = scale::decode(code, global_scale);
    f32 const sum = rounding_loss<typename F::element, group>(weights, triangle, inverse_diagonal, s);
    i32 const better = less(sum, best);
    best = select(better, sum, best);
    best_code = select(better, code, best_code);
  }
  return scale::decode(best_code, global_scale);
}

/// GPTQ with the scales of `t.scales`.
template <class Element>
inline void gptq_with_scales(packed_triangle const& u, tile const& t) noexcept {
  for (std::size_t c = 0; c < u.columns; c += strip_width) {
    update_strip(u, c / strip_width, c, t.weights);
    round_block<Element>(u, t, c, c + strip_width);
  }
}

/// GPTQ that chooses the scale of each group when it is reached. `t.group` is that of the format; columns are whole
/// groups.
template <class F>
inline void gptq_with_sweep(packed_triangle const& u, tile const& t) noexcept {
  constexpr std::size_t group = F::block_shape::columns;
  f32 const global_scale = splat(t.global_scale);
  for (std::size_t c = 0; c < u.columns; c += group) {
    for (std::size_t strip = c; strip < c + group; strip += strip_width) {
      update_strip(u, strip / strip_width, c, t.weights);
    }
    alignas(64) float triangle[group * group];
    for (std::size_t row = 0; row < group; ++row) {
      for (std::size_t column = row; column < group; ++column) {
        triangle[row * group + column] = at(u, c + row, c + column);
      }
    }
    for (std::size_t h = 0; h < tile_rows; h += 16) {
      store(t.scales + c / group * tile_rows + h,
            choose_scale<F>(t.weights + c * tile_rows + h, triangle, u.inverse_diagonal + c, global_scale));
    }
    round_block<typename F::element>(u, t, c, c + group);
  }
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
