// Plain loops in float64, matrices in every kind of memory layout, and the backends that this build has.
#pragma once

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "prismaquant/linalg/eigen_backend.hpp"
#include "support/random_matrix.hpp"

#if defined(PRISMAQUANT_TEST_LAPACK)
extern "C" {
prismaquant::lapack_backend::sgemm_function sgemm_;
prismaquant::lapack_backend::ssyrk_function ssyrk_;
prismaquant::lapack_backend::spotrf_function spotrf_;
prismaquant::lapack_backend::strtri_function strtri_;
}
#endif

namespace prismaquant::test {

struct named_backend {
  std::string name;
  lapack_backend functions;
};

inline std::vector<named_backend> backends() {
  return {
    {"eigen", eigen_backend{}},
#if defined(PRISMAQUANT_TEST_LAPACK)
        {"lapack", {&sgemm_, &ssyrk_, &spotrf_, &strtri_}},
#endif
  };
}

// Dense float64, row by row.
struct plain {
  plain(std::size_t row_count, std::size_t column_count)
      : rows(row_count), columns(column_count), elements(row_count * column_count) {}
  explicit plain(matrix_view<float const> m) : plain(m.rows, m.columns) {
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t c = 0; c < columns; ++c) (*this)(r, c) = static_cast<double>(m(r, c));
    }
  }
  double& operator()(std::size_t r, std::size_t c) { return elements[r * columns + c]; }
  double operator()(std::size_t r, std::size_t c) const { return elements[r * columns + c]; }

  std::size_t rows, columns;
  std::vector<double> elements;
};

inline plain product(plain const& a, plain const& b) {
  plain c(a.rows, b.columns);
  for (std::size_t i = 0; i < a.rows; ++i) {
    for (std::size_t k = 0; k < a.columns; ++k) {
      for (std::size_t j = 0; j < b.columns; ++j) c(i, j) += a(i, k) * b(k, j);
    }
  }
  return c;
}

inline plain transpose(plain const& a) {
  plain t(a.columns, a.rows);
  for (std::size_t i = 0; i < a.rows; ++i) {
    for (std::size_t j = 0; j < a.columns; ++j) t(j, i) = a(i, j);
  }
  return t;
}

inline double largest_difference(plain const& a, plain const& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.elements.size(); ++i) {
    double const difference = std::abs(a.elements[i] - b.elements[i]);
    if (!(difference <= largest)) largest = difference;  // NaN counts
  }
  return largest;
}

// By rows, by columns, rows with gaps, gaps everywhere, from the last element to the first.
enum class layout { rows, columns, padded, scattered, backwards };
inline constexpr layout layouts[] = {layout::rows, layout::columns, layout::padded, layout::scattered,
                                     layout::backwards};

// A matrix with memory of its own in one of the layouts; what lies between its elements is `filler`.
class laid_out {
 public:
  static constexpr float filler = 1234.5f;

  laid_out(matrix_view<float const> m, layout how)
      : memory_(4 * m.rows * m.columns + 3 * (m.rows + m.columns), filler) {
    auto const rows = static_cast<std::ptrdiff_t>(m.rows), columns = static_cast<std::ptrdiff_t>(m.columns);
    view_ = {memory_.data(), m.rows, m.columns, columns, 1};
    if (how == layout::columns) view_ = {memory_.data(), m.rows, m.columns, 1, rows};
    if (how == layout::padded) view_.row_stride = columns + 3;
    if (how == layout::scattered) view_ = {memory_.data(), m.rows, m.columns, 2 * columns, 2};
    if (how == layout::backwards) view_ = {memory_.data() + rows * columns - 1, m.rows, m.columns, -columns, -1};
    for (std::size_t r = 0; r < m.rows; ++r) {
      for (std::size_t c = 0; c < m.columns; ++c) view_(r, c) = m(r, c);
    }
  }
  laid_out(laid_out const&) = delete;

  matrix_view<float> view() const { return view_; }

  std::size_t fillers() const {
    std::size_t count = 0;
    for (float element : memory_) count += element == filler ? 1u : 0u;
    return count;
  }

 private:
  std::vector<float> memory_;
  matrix_view<float> view_;
};

// x'x / count + damping on the diagonal, in float32.
inline random_matrix gram_of(random_matrix const& x, float damping) {
  plain const p(x.view());
  plain const sum = product(transpose(p), p);
  random_matrix h(x.columns, x.columns, 0);
  for (std::size_t i = 0; i < sum.elements.size(); ++i) {
    h.elements[i] = static_cast<float>(sum.elements[i] / static_cast<double>(x.rows));
  }
  for (std::size_t i = 0; i < h.rows; ++i) h.elements[i * h.rows + i] += damping;
  return h;
}

}  // namespace prismaquant::test
