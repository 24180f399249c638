/// @file
/// The kernels of solvers in plain C++, for where there are no others: compilers without vector extensions, the
/// instruction set "scalar", formats with zero points.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <vector>

#include "prismaquant/codec/kernels/traits.hpp"
#include "prismaquant/solver/kernels/select.hpp"

namespace prismaquant::detail {

/// The value nearest to `w` on the grid of `F` under an effective scale and a zero point.
template <class F>
float nearest_on_grid(float w, float scale, float zero) noexcept {
  return (F::element::decode(F::element::encode(w / scale + zero)) - zero) * scale;
}

/// The effective scale that `F` can store nearest to a positive `s`.
template <class F>
float nearest_scale(float s, float global_scale) noexcept {
  using scale = typename F::scale;
  if constexpr (std::same_as<scale, e4m3_scale>) {
    int const code = std::clamp<int>(e4m3::encode(s * global_scale), 1, scale::max_code);
    return scale::decode(static_cast<std::uint8_t>(code), global_scale);
  } else if constexpr (is_e8m0<scale>) {
    auto const code = static_cast<int>((std::bit_cast<std::uint32_t>(s) + (1u << 22)) >> 23);
    return scale::decode(static_cast<std::uint8_t>(std::clamp<int>(code, scale::min_code, scale::max_code)), 1.0f);
  } else if constexpr (std::same_as<scale, bf16_scale>) {
    return scale::decode(std::max<std::uint16_t>(bfloat16::round(s).bits, 1), 1.0f);
  } else {
    return s;
  }
}

/// One row of a tile: element c stands at c * tile_rows.
template <class F>
struct tile_row {
  tile const& t;
  std::size_t lane;

  float& weight(std::size_t c) const { return t.weights[c * tile_rows + lane]; }
  float& value(std::size_t c) const { return t.values[c * tile_rows + lane]; }
  float& scale(std::size_t c) const { return t.scales[c / t.group * tile_rows + lane]; }
  float zero(std::size_t c) const {
    if constexpr (has_zero_points<F>) return t.zeros[c / t.group * tile_rows + lane];
    return 0.0f;
  }
  float nearest(float w, std::size_t c) const { return nearest_on_grid<F>(w, scale(c), zero(c)); }
};

inline float const* row_of(packed_triangle const& u, std::size_t row, std::size_t column) {
  return u.strips + packed_triangle::begin(column / strip_width) + row * strip_width + column % strip_width;
}

/// Takes the errors of all columns before `c` off column `c`, for all rows: the loop that matters.
inline void update_column(packed_triangle const& u, tile const& t, std::size_t c) {
  float* const out = t.weights + c * tile_rows;
  for (std::size_t k = 0; k < c; ++k) {
    float const factor = *row_of(u, k, c);
    for (std::size_t r = 0; r < tile_rows; ++r) out[r] -= t.weights[k * tile_rows + r] * factor;
  }
}

template <class F>
void scalar_gptq(packed_triangle const& u, tile const& t) noexcept {
  for (std::size_t c = 0; c < u.columns; ++c) {
    update_column(u, t, c);
    for (std::size_t lane = 0; lane < tile_rows; ++lane) {
      tile_row<F> const row{t, lane};
      row.value(c) = row.nearest(row.weight(c), c);
      row.weight(c) = (row.weight(c) - row.value(c)) * u.inverse_diagonal[c];
    }
  }
}

/// What rounding the columns of a group adds to the objective, errors spread over the rest of the group.
template <class F>
double scalar_rounding_loss(packed_triangle const& u, std::array<float, F::block_shape::columns> w, std::size_t first,
                            float scale) {
  double loss = 0.0;
  for (std::size_t c = 0; c < w.size(); ++c) {
    float const error = (w[c] - nearest_on_grid<F>(w[c], scale, 0.0f)) * u.inverse_diagonal[first + c];
    loss += double{error} * double{error};
    for (std::size_t k = c + 1; k < w.size(); ++k) w[k] -= error * *row_of(u, first + c, first + k);
  }
  return loss;
}

template <class F>
void scalar_gptq_sweep(packed_triangle const& u, tile const& t) noexcept {
  constexpr std::size_t group = F::block_shape::columns;
  for (std::size_t first = 0; first < u.columns; first += group) {
    for (std::size_t c = first; c < first + group; ++c) {
      for (std::size_t k = 0; k < first; ++k) {
        float const factor = *row_of(u, k, c);
        for (std::size_t r = 0; r < tile_rows; ++r)
          t.weights[c * tile_rows + r] -= t.weights[k * tile_rows + r] * factor;
      }
    }
    for (std::size_t lane = 0; lane < tile_rows; ++lane) {
      tile_row<F> const row{t, lane};
      std::array<float, group> w;
      float amax = 0.0f;
      for (std::size_t c = 0; c < group; ++c) amax = std::max(amax, magnitude(w[c] = row.weight(first + c)));
      auto const window = F::scale::sweep(amax, F::element::max_value, t.global_scale);
      double least = std::numeric_limits<double>::infinity();
      for (unsigned code = window.first; code <= window.last; ++code) {
        float const scale = F::scale::decode(static_cast<typename F::scale::code_type>(code), t.global_scale);
        double const loss = scalar_rounding_loss<F>(u, w, first, scale);
        if (loss >= least) continue;
        least = loss;
        row.scale(first) = scale;
      }
      for (std::size_t c = 0; c < group; ++c) {
        row.value(first + c) = row.nearest(w[c], first + c);
        float const error = (w[c] - row.value(first + c)) * u.inverse_diagonal[first + c];
        row.weight(first + c) = error;
        for (std::size_t k = c + 1; k < group; ++k) w[k] -= error * *row_of(u, first + c, first + k);
      }
    }
  }
}

/// One row of a panel.
template <class F>
struct scalar_row {
  strip_panel const& p;
  std::size_t r;
  float weight;
  float* slopes = p.slopes + r * strip_columns;
  float* values = p.values + static_cast<std::ptrdiff_t>(r) * p.value_stride;
  float* scales = p.scales + static_cast<std::ptrdiff_t>(r) * p.scale_stride;

  float zero(std::size_t c) const {
    if constexpr (has_zero_points<F>)
      return p.zeros[static_cast<std::ptrdiff_t>(r) * p.scale_stride + static_cast<std::ptrdiff_t>(c / p.group)];
    return 0.0f;
  }
  float nearest(float w, std::size_t c) const { return nearest_on_grid<F>(w, scales[c / p.group], zero(c)); }

  void move(std::size_t c, float to) const {
    float const step = (to - values[c]) * weight;
    values[c] = to;
    for (std::size_t k = 0; k < p.columns; ++k) slopes[k] += step * p.h[c * strip_columns + k];
  }

  bool improve(std::size_t c) const {
    float const curvature = weight * p.h[c * strip_columns + c];
    float const best = nearest(values[c] - slopes[c] / curvature, c), step = best - values[c];
    if (!(step * (curvature * step * (1.0f + 1e-6f) + 2.0f * slopes[c]) < 0.0f)) return false;
    move(c, best);
    return true;
  }

  /// Moves the scale of the group that starts at column `first` to the best that can be stored while the codes stay.
  bool refit(std::size_t first) const {
    constexpr std::size_t group = F::block_shape::columns;
    float const scale = scales[first / group];
    std::array<float, group> unit;
    float slope = 0.0f, curvature = 0.0f;
    for (std::size_t c = 0; c < group; ++c) {
      unit[c] = nearest(values[first + c], first + c) / scale;
      slope += slopes[first + c] * unit[c];
      float const* const h = p.h + (first + c) * strip_columns + first;
      float sum = 0.5f * h[c] * unit[c];
      for (std::size_t k = 0; k < c; ++k) sum += h[k] * unit[k];
      curvature += 2.0f * weight * sum * unit[c];
    }
    float const wanted = scale - slope / curvature;
    if (!(wanted > 0.0f && wanted < 1e30f && curvature > 0.0f)) return false;
    float const best = nearest_scale<F>(wanted, p.global_scale), step = best - scale;
    float const least = -1e-7f * curvature * scale * scale;  // below it unquantized scales only creep
    if (!(step * (curvature * step * (1.0f + 1e-6f) + 2.0f * slope) < least)) return false;
    scales[first / group] = best;
    for (std::size_t c = 0; c < group; ++c) {
      float const moved = nearest(unit[c] * best, first + c);
      if (moved != values[first + c]) move(first + c, moved);
    }
    return true;
  }
};

template <class F, bool Refits>
std::size_t scalar_descent(strip_panel const& p) noexcept {
  constexpr std::size_t width = Refits ? F::block_shape::columns : 16;
  std::size_t changes = 0;
  for (std::size_t r = 0; r < p.rows; ++r) {
    float const* const g = p.g == nullptr ? nullptr : p.g + static_cast<std::ptrdiff_t>(r) * p.g_stride;
    scalar_row<F> const row{p, r, g == nullptr ? 1.0f : g[r]};
    float* const steps = p.steps + r * strip_columns;
    std::copy_n(row.values, p.columns, steps);
    std::array<float, strip_columns> push;
    std::copy_n(row.slopes, p.columns, push.data());
    for (std::size_t sweep = 0, changed = 1; changed != 0 && sweep < p.sweeps; ++sweep) {
      changed = 0;
      for (std::size_t first = 0; first < p.columns; first += width) {
        for (std::size_t c = first; c < first + width; ++c) changed += row.improve(c) ? 1u : 0u;
        if constexpr (Refits) changed += row.refit(first) ? 1u : 0u;
      }
      changes += changed;
    }
    for (std::size_t c = 0; c < p.columns; ++c) steps[c] = row.values[c] - steps[c];
    if (g == nullptr) continue;
    for (std::size_t c = 0; c < p.columns; ++c) {
      p.pushes[r * strip_columns + c] = push[c] = (row.slopes[c] - push[c]) / g[r];
    }
    for (std::size_t next = r + 1; next < p.rows; ++next) {
      for (std::size_t c = 0; c < p.columns; ++c) p.slopes[next * strip_columns + c] += g[next] * push[c];
    }
  }
  return changes;
}

inline void scalar_spread(strip_steps const& s) noexcept {
  for (std::size_t r = 0; r < s.rows; ++r) {
    for (std::size_t c = 0; c < strip_columns; ++c) {
      float const step = s.steps[r * strip_columns + c];
      for (std::size_t i = 0; step != 0.0f && i < s.columns; ++i) {
        s.slopes[r * s.columns + i] += step * s.h[c * s.columns + i];
      }
    }
  }
}

template <class F>
constexpr format_solver_kernels scalar_solver_kernels() {
  format_solver_kernels k{};
  if constexpr (has_scales<F> && !nested_format<F>) {
    k.gptq = &scalar_gptq<F>;
    k.descent = &scalar_descent<F, false>;
    k.spread = &scalar_spread;
    if constexpr (in_groups<F> && !has_zero_points<F>) {
      k.descent_refit = &scalar_descent<F, true>;
      if constexpr (sweep_rule::swept<F>) k.gptq_sweep = &scalar_gptq_sweep<F>;
    }
  }
  return k;
}

/// Those of the instruction set where there are any, else these.
template <class F>
format_solver_kernels solver_kernels_or_scalar() {
  auto const vectors = solver_kernels<F>();
  return vectors.gptq != nullptr ? vectors : scalar_solver_kernels<F>();
}

}  // namespace prismaquant::detail
