// GPTQ as the paper has it, in float64: one row at a time, the factor by textbook loops.
#pragma once

#include <limits>

#include "linalg/reference.hpp"
#include "solver/problems.hpp"

namespace prismaquant::test {

// U, upper triangular, with U'U = inverse of h.
inline square_matrix upper_factor_of_inverse(square_matrix const& h) {
  std::size_t const n = h.n;
  square_matrix lower(n), inverse(n);  // of h from the end: h = L'L with L lower triangular, hence U = L'^-1
  for (std::size_t back = 0; back < n; ++back) {
    std::size_t const j = n - 1 - back;
    for (std::size_t i = 0; i <= j; ++i) {
      double sum = h(j, i);
      for (std::size_t k = j + 1; k < n; ++k) sum -= lower(k, j) * lower(k, i);
      lower(j, i) = i == j ? std::sqrt(sum) : 0.0;
      if (i != j) lower(j, i) = sum;
    }
    for (std::size_t i = 0; i < j; ++i) lower(j, i) /= lower(j, j);
  }
  for (std::size_t column = 0; column < n; ++column) {  // (L')^-1, an upper triangle
    for (std::size_t back = 0; back <= column; ++back) {
      std::size_t const row = column - back;
      double sum = row == column ? 1.0 : 0.0;
      for (std::size_t k = row + 1; k <= column; ++k) sum -= lower(k, row) * inverse(k, column);
      inverse(row, column) = sum / lower(row, row);
    }
  }
  return inverse;
}

inline square_matrix reordered(square_matrix const& h, std::vector<std::size_t> const& order) {
  square_matrix result(h.n);
  for (std::size_t i = 0; i < h.n; ++i) {
    for (std::size_t j = 0; j < h.n; ++j) result(i, j) = h(order[i], order[j]);
  }
  return result;
}

// The nearest value of F, scaled exactly; the element codec rounds float32.
template <class F>
double on_grid(double w, double scale, double zero = 0.0) {
  return (double{F::element::decode(F::element::encode(static_cast<float>(w / scale + zero)))} - zero) * scale;
}

// Rounds w[first ..] of the columns of one group and takes the errors off the columns that follow, up to `last`.
template <class F>
double round_columns(std::vector<double>& w, square_matrix const& u, std::size_t first, std::size_t count,
                     std::size_t last, double scale) {
  double loss = 0;
  for (std::size_t c = first; c < first + count; ++c) {
    double const value = on_grid<F>(w[c], scale), error = (w[c] - value) / u(c, c);
    loss += error * error;
    for (std::size_t next = c + 1; next < last; ++next) w[next] -= error * u(c, next);
    w[c] = value;
  }
  return loss;
}

// Effective scales and zero points of every row and group.
template <class F>
struct stored_scales {
  stored_scales(quantized_matrix<F> const& q) : view(q.view()) {}
  detail::block_grid<F> operator()(std::size_t row, std::size_t column) const {
    std::size_t const height = F::block_shape::rows != 0 ? F::block_shape::rows : view.rows;
    std::size_t const width = F::block_shape::columns != 0 ? F::block_shape::columns : view.columns;
    return {detail::get_choice<F>(view, row / height, column / width), view.global_scale};
  }
  const_quantized_view<F> view;
};

// Values of one row under given scales.
template <class F>
std::vector<double> gptq_row(float const* weights, square_matrix const& u, std::vector<std::size_t> const& order,
                             stored_scales<F> const& scales, std::size_t row) {
  std::size_t const n = u.n;
  std::vector<double> w(n), values(n);
  for (std::size_t c = 0; c < n; ++c) w[c] = double{weights[order[c]]};
  for (std::size_t c = 0; c < n; ++c) {
    auto const grid = scales(row, order[c]);
    double const value = on_grid<F>(w[c], double{grid.scale}, double{grid.zero}), error = (w[c] - value) / u(c, c);
    for (std::size_t next = c + 1; next < n; ++next) w[next] -= error * u(c, next);
    values[order[c]] = value;
  }
  return values;
}

// The same with scales chosen when their group is reached: of all codes for which `tried(code, amax)`, amax that of the
// compensated weights, the one with the least loss.
template <class F, class Tried>
std::vector<double> gptq_sweep_row(float const* weights, square_matrix const& u, std::vector<std::size_t> const& order,
                                   float global_scale, Tried&& tried) {
  constexpr std::size_t group = F::block_shape::columns;
  std::size_t const n = u.n;
  std::vector<double> w(n), values(n);
  for (std::size_t c = 0; c < n; ++c) w[c] = double{weights[order[c]]};
  for (std::size_t first = 0; first < n; first += group) {
    double amax = 0, least = std::numeric_limits<double>::infinity(), best = 1;
    for (std::size_t c = first; c < first + group; ++c) amax = std::max(amax, std::abs(w[c]));
    for (int code = F::scale::min_code; code <= int{F::scale::max_code}; ++code) {
      if (!tried(code, static_cast<float>(amax))) continue;
      double const scale = double{F::scale::decode(static_cast<typename F::scale::code_type>(code), global_scale)};
      auto trial = w;
      double const loss = round_columns<F>(trial, u, first, group, first + group, scale);
      if (loss >= least) continue;
      least = loss;
      best = scale;
    }
    round_columns<F>(w, u, first, group, n, best);
  }
  for (std::size_t c = 0; c < n; ++c) values[order[c]] = w[c];
  return values;
}

}  // namespace prismaquant::test
