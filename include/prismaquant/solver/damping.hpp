/// @file
/// Grams as solvers use them: per token, shrunk where tokens are few, and damped.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

#include "prismaquant/codec/codec.hpp"
#include "prismaquant/solver/dense_matrix.hpp"

namespace prismaquant {

/// Share of the mean diagonal that is added to the diagonal of a Gram of `dimension` x `dimension` that sums `tokens`
/// vectors: min(1, 1.2 sqrt(dimension / tokens)). Measured to be near the best from half a token per dimension to 128.
inline double damping_rule(std::size_t dimension, std::size_t tokens) {
  if (tokens == 0) return 1.0;
  return std::min(1.0, 1.2 * std::sqrt(static_cast<double>(dimension) / static_cast<double>(tokens)));
}

namespace detail {

/// @throws shape_error unless `m` is [rows, columns], numeric_error unless it is finite with a diagonal that is not
/// negative. `step`: diagonal elements stand at (r, r % step).
inline void require_gram(char const* name, matrix_view<float const> m, std::size_t rows, std::size_t columns) {
  require_shape(name, m, rows, columns);
  require_finite(name, m);
  for (std::size_t r = 0; r < rows; ++r) {
    if (m(r, r % columns) >= 0.0f) continue;
    throw numeric_error(std::string(name) + " is " + std::to_string(m(r, r % columns)) + " on its diagonal, row " +
                        std::to_string(r) + "; a sum of squares cannot be negative");
  }
}

inline double mean_diagonal(matrix_view<float const> m) {
  double sum = 0.0;
  for (std::size_t i = 0; i < m.rows; ++i) sum += double{m(i, i)};
  return m.rows == 0 ? 0.0 : sum / static_cast<double>(m.rows);
}

/// A Gram per token plus damping on its diagonal. One without any information (all zeros) becomes the identity: then
/// the objective is the plain squared error.
class damped_gram {
 public:
  damped_gram() = default;
  /// `mean` is already divided by its count.
  damped_gram(dense_matrix mean, double damping) : matrix_(std::move(mean)), scale_(mean_diagonal(matrix_.view())) {
    for (std::size_t i = 0; i < matrix_.rows(); ++i) dead_ += matrix_.view()(i, i) == 0.0f ? 1u : 0u;
    if (!(scale_ > 0.0)) scale_ = damping = 1.0;
    undamped_.resize(matrix_.rows());
    for (std::size_t i = 0; i < matrix_.rows(); ++i) undamped_[i] = matrix_.view()(i, i);
    set_damping(damping);
  }

  void set_damping(double damping) {
    damping_ = damping;
    auto const m = matrix_.view();
    for (std::size_t i = 0; i < m.rows; ++i) m(i, i) = static_cast<float>(double{undamped_[i]} + damping * scale_);
  }

  matrix_view<float const> view() const noexcept { return matrix_.view(); }
  double damping() const noexcept { return damping_; }
  std::size_t dead() const noexcept { return dead_; }  ///< zeros on the diagonal before damping

 private:
  dense_matrix matrix_;
  std::vector<float> undamped_;
  double scale_ = 0.0, damping_ = 0.0;
  std::size_t dead_ = 0;
};

/// `sum` / `count`; given a pooled Gram, shrunk to it as if it had been seen for one token per column more.
template <executor Executor>
dense_matrix mean_gram(matrix_view<float const> sum, std::size_t count, matrix_view<float const> pooled,
                       std::size_t pooled_count, Executor& executor) {
  dense_matrix mean(sum.rows, sum.columns);
  bool const shrink = pooled.data != nullptr && pooled_count != 0;
  double const extra = shrink ? static_cast<double>(sum.columns) : 0.0;
  double const own = 1.0 / (static_cast<double>(count) + extra);
  double const other = shrink ? extra * own / static_cast<double>(pooled_count) : 0.0;
  executor.for_ranges(sum.rows, [&](std::size_t begin, std::size_t end) {
    for (std::size_t r = begin; r < end; ++r) {
      for (std::size_t c = 0; c < sum.columns; ++c) {
        mean.row(r)[c] = static_cast<float>(double{sum(r, c)} * own + (shrink ? double{pooled(r, c)} * other : 0.0));
      }
    }
  });
  return mean;
}

/// U with U'U = inverse of `h`, columns in `order`. Where `h` cannot be factored its damping is raised, tenfold each
/// time, until it can; `retries` counts how often.
/// @throws numeric_error if that does not help
template <class Linalg>
dense_matrix factored(damped_gram& h, std::vector<std::size_t> const& order, Linalg const& linalg,
                      std::size_t& retries) {
  constexpr std::size_t most = 8;
  for (retries = 0;; ++retries) {
    dense_matrix u(order.size(), order.size());
    for (std::size_t r = 0; r < order.size(); ++r) {
      for (std::size_t c = 0; c < order.size(); ++c) u.row(r)[c] = h.view()(order[r], order[c]);
    }
    if (linalg.factor_inverse(u.view())) return u;
    if (retries == most) {
      throw numeric_error("gram cannot be factored, not even with " + std::to_string(h.damping()) +
                          " of its mean diagonal added: is it a sum of x x'?");
    }
    h.set_damping(std::max(h.damping() * 10.0, 1e-6));
  }
}

}  // namespace detail

}  // namespace prismaquant
