// Random problems for solvers, and plain float64 references.
#pragma once

#include <cmath>
#include <cstddef>
#include <random>
#include <vector>

#include "prismaquant/linalg/eigen_backend.hpp"
#include "prismaquant/solver/chain.hpp"
#include "support/random_matrix.hpp"

namespace prismaquant::test {

struct square_matrix {
  explicit square_matrix(std::size_t size) : n(size), elements(size * size) {}
  double& operator()(std::size_t r, std::size_t c) { return elements[r * n + c]; }
  double operator()(std::size_t r, std::size_t c) const { return elements[r * n + c]; }
  std::size_t n;
  std::vector<double> elements;
};

// Vectors whose components are correlated, as activations are: a few shared directions beside noise, scales that
// differ from column to column.
inline random_matrix correlated(std::size_t count, std::size_t columns, unsigned seed) {
  random_matrix x(count, columns, seed, 1.0f);
  std::size_t const shared = std::max<std::size_t>(1, columns / 8);
  random_matrix const directions(shared, columns, seed + 1, 1.0f), amounts(count, shared, seed + 2, 1.0f);
  std::mt19937 generator(seed + 3);
  std::normal_distribution<float> normal(0.0f, 0.7f);
  for (std::size_t c = 0; c < columns; ++c) {
    float const size = std::exp(normal(generator));
    for (std::size_t t = 0; t < count; ++t) {
      float sum = x.elements[t * columns + c];
      for (std::size_t s = 0; s < shared; ++s) sum += amounts.view()(t, s) * directions.view()(s, c);
      x.elements[t * columns + c] = size * sum;
    }
  }
  return x;
}

// a'b, float32 of float64 sums.
inline random_matrix gram(random_matrix const& a, random_matrix const& b) {
  random_matrix h(a.columns, b.columns, 0, 1.0f);
  std::vector<double> sums(h.elements.size());
  for (std::size_t t = 0; t < a.rows; ++t) {
    for (std::size_t i = 0; i < a.columns; ++i) {
      double const x = double{a.elements[t * a.columns + i]};
      for (std::size_t j = 0; j < b.columns; ++j) sums[i * b.columns + j] += x * double{b.elements[t * b.columns + j]};
    }
  }
  for (std::size_t i = 0; i < sums.size(); ++i) h.elements[i] = static_cast<float>(sums[i]);
  return h;
}

// Weights [rows, columns], H of `tokens` inputs, G of as many output gradients.
struct problem {
  problem(std::size_t rows, std::size_t columns, std::size_t token_count, unsigned seed)
      : weights(rows, columns, seed),
        tokens(token_count),
        h([&] {
          auto const x = correlated(token_count, columns, seed + 10);
          return gram(x, x);
        }()),
        g([&] {
          auto const x = correlated(token_count, rows, seed + 20);
          return gram(x, x);
        }()) {}

  solve_context one_sided() const { return {.gram = h.view(), .tokens = tokens}; }
  solve_context both_sided() const {
    auto context = one_sided();
    context.output_gram = g.view();
    return context;
  }

  random_matrix weights;
  std::size_t tokens;
  random_matrix h, g;
};

// sum / tokens, damped by the rule or by the given share, in float32 as solvers keep it: of a Gram that is all but
// singular, rounding is a part.
inline square_matrix damped(matrix_view<float const> sum, std::size_t tokens, double share) {
  square_matrix m(sum.rows);
  double const own = 1.0 / static_cast<double>(tokens);
  double trace = 0;
  for (std::size_t i = 0; i < m.n; ++i) {
    for (std::size_t j = 0; j < m.n; ++j) m(i, j) = double{static_cast<float>(double{sum(i, j)} * own)};
    trace += m(i, i);
  }
  double const added = trace > 0 ? share * trace / static_cast<double>(m.n) : 1.0;
  for (std::size_t i = 0; i < m.n; ++i) m(i, i) = double{static_cast<float>(m(i, i) + added)};
  return m;
}
inline square_matrix damped(matrix_view<float const> sum, std::size_t tokens) {
  return damped(sum, tokens, damping_rule(sum.rows, tokens));
}

// values - weights, row by row.
template <class F>
std::vector<double> deviations(random_matrix const& weights, quantized_matrix<F> const& q) {
  std::vector<float> decoded(weights.elements.size());
  decode<F>(q.view(), view(std::span<float>(decoded), weights.rows, weights.columns));
  std::vector<double> d(decoded.size());
  for (std::size_t i = 0; i < d.size(); ++i) d[i] = double{decoded[i]} - double{weights.elements[i]};
  return d;
}

inline double quadratic(double const* d, square_matrix const& h) {
  double sum = 0;
  for (std::size_t i = 0; i < h.n; ++i) {
    if (d[i] == 0) continue;
    double slope = 0;
    for (std::size_t j = 0; j < h.n; ++j) slope += h(i, j) * d[j];
    sum += d[i] * slope;
  }
  return sum;
}

// d h d' of every row.
inline std::vector<double> row_objectives(std::vector<double> const& d, square_matrix const& h) {
  std::vector<double> result;
  for (std::size_t i = 0; i < d.size(); i += h.n) result.push_back(quadratic(d.data() + i, h));
  return result;
}

// tr(d' g d h), only of the diagonal blocks of `block` rows of g.
inline std::vector<double> coupled_objectives(std::vector<double> const& d, square_matrix const& g,
                                              square_matrix const& h, std::size_t block) {
  std::vector<double> slopes(d.size()), result((g.n + block - 1) / block);
  for (std::size_t r = 0; r < g.n; ++r) {
    for (std::size_t i = 0; i < h.n; ++i) {
      for (std::size_t j = 0; j < h.n; ++j) slopes[r * h.n + j] += d[r * h.n + i] * h(i, j);
    }
  }
  for (std::size_t r = 0; r < g.n; ++r) {
    for (std::size_t q = r / block * block; q < std::min(g.n, (r / block + 1) * block); ++q) {
      double dot = 0;
      for (std::size_t c = 0; c < h.n; ++c) dot += d[r * h.n + c] * slopes[q * h.n + c];
      result[r / block] += g(r, q) * dot;
    }
  }
  return result;
}

inline double total(std::vector<double> const& numbers) {
  double sum = 0;
  for (double x : numbers) sum += x;
  return sum;
}

}  // namespace prismaquant::test
