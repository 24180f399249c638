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

/// Element h[row, column].
inline float at(packed_square const& h, std::size_t row, std::size_t column) {
  return h.strips[(column / strip_width * h.columns + row) * strip_width + column % strip_width];
}

/// Moves the scale of the group that starts at column `first` to the best that can be stored while the codes stay.
template <class F>
bool scalar_refit(packed_square const& h, tile_row<F> const& row, std::size_t first, float const* gain) {
  constexpr std::size_t group = F::block_shape::columns;
  float const scale = row.scale(first);
  std::array<float, group> unit;
  float slope = 0.0f, curvature = 0.0f;
  for (std::size_t c = 0; c < group; ++c) {
    unit[c] = row.nearest(row.value(first + c), first + c) / scale;
    slope += gain[c * tile_rows] * unit[c];
    float sum = 0.5f * at(h, first + c, first + c) * unit[c];
    for (std::size_t k = 0; k < c; ++k) sum += at(h, first + c, first + k) * unit[k];
    curvature += 2.0f * sum * unit[c];
  }
  float const wanted = scale + slope / curvature;
  if (!(wanted > 0.0f && wanted < 1e30f && curvature > 0.0f)) return false;
  float const refit = nearest_scale<F>(wanted, row.t.global_scale), step = refit - scale;
  float const least = -1e-7f * curvature * scale * scale;  // below it unquantized scales only creep
  if (!(step * (curvature * step * (1.0f + 1e-6f) - 2.0f * slope) < least)) return false;
  row.scale(first) = refit;
  for (std::size_t c = 0; c < group; ++c) {
    float const moved = row.nearest(unit[c] * refit, first + c);
    row.weight(first + c) += moved - row.value(first + c);
    row.value(first + c) = moved;
  }
  return true;
}

template <class F, bool Refits>
std::size_t scalar_descend(packed_square const& h, tile const& t) noexcept {
  constexpr std::size_t width = Refits ? F::block_shape::columns : 1;
  std::size_t changes = 0;
  std::array<float, width * tile_rows> gain;
  for (std::size_t first = 0; first < h.columns; first += width) {
    gain.fill(0.0f);
    for (std::size_t c = 0; c < width; ++c) {
      for (std::size_t k = 0; k < h.columns; ++k) {
        float const factor = at(h, k, first + c);
        for (std::size_t r = 0; r < tile_rows; ++r) gain[c * tile_rows + r] -= t.weights[k * tile_rows + r] * factor;
      }
    }
    for (std::size_t lane = 0; lane < tile_rows; ++lane) {
      tile_row<F> const row{t, lane};
      for (std::size_t c = 0; c < width; ++c) {
        float const slope = gain[c * tile_rows + lane], curvature = at(h, first + c, first + c);
        float const best = row.nearest(row.value(first + c) + slope / curvature, first + c);
        float const step = best - row.value(first + c);
        if (!(step * (curvature * step * (1.0f + 1e-6f) - 2.0f * slope) < 0.0f)) continue;
        row.value(first + c) = best;
        row.weight(first + c) += step;
        for (std::size_t k = 0; k < width; ++k) gain[k * tile_rows + lane] -= step * at(h, first + c, first + k);
        ++changes;
      }
      if constexpr (Refits) changes += scalar_refit<F>(h, row, first, gain.data() + lane) ? 1u : 0u;
    }
  }
  return changes;
}

template <class F>
std::size_t scalar_panel(panel const& p) noexcept {
  std::size_t changes = 0;
  for (std::size_t row = 0; row < p.rows; ++row) {
    std::size_t const begin = row * p.columns;
    float* const slopes = p.slopes + begin;
    float* const push = p.pushes + begin;
    float const* const g = p.g + static_cast<std::ptrdiff_t>(row) * p.g_stride;
    std::copy_n(slopes, p.columns, push);
    for (std::size_t sweep = 0, changed = 1; changed != 0 && sweep < p.sweeps; ++sweep) {
      changed = 0;
      for (std::size_t c = 0; c < p.columns; ++c) {
        float& value = p.values[begin + c];
        float const curvature = g[row] * p.h[c * p.columns + c];
        float const zero = p.zeros != nullptr ? p.zeros[begin + c] : 0.0f;
        float const best = nearest_on_grid<F>(value - slopes[c] / curvature, p.scales[begin + c], zero);
        float const step = best - value;
        if (!(step * (curvature * step * (1.0f + 1e-6f) + 2.0f * slopes[c]) < 0.0f)) continue;
        value = best;
        for (std::size_t k = 0; k < p.columns; ++k) slopes[k] += g[row] * step * p.h[c * p.columns + k];
        ++changed;
      }
      changes += changed;
    }
    for (std::size_t c = 0; c < p.columns; ++c) push[c] = (slopes[c] - push[c]) / g[row];
    for (std::size_t next = row + 1; next < p.rows; ++next) {
      for (std::size_t c = 0; c < p.columns; ++c) p.slopes[next * p.columns + c] += g[next] * push[c];
    }
  }
  return changes;
}

template <class F>
constexpr format_solver_kernels scalar_solver_kernels() {
  format_solver_kernels k{};
  if constexpr (has_scales<F> && !nested_format<F>) {
    k.gptq = &scalar_gptq<F>;
    k.descent = &scalar_descend<F, false>;
    k.panel = &scalar_panel<F>;
    if constexpr (in_groups<F> && !has_zero_points<F>) {
      k.descent_refit = &scalar_descend<F, true>;
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
