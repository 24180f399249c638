/// @file
/// Matrices as BLAS and LAPACK take them: by columns, with a leading dimension.
#pragma once

#include <cstddef>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "prismaquant/core/error.hpp"
#include "prismaquant/core/matrix_view.hpp"

namespace prismaquant::detail {

inline int fortran_int(std::size_t n) {
  if (n > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw shape_error("BLAS counts with 32-bit integers, which cannot hold " + std::to_string(n));
  }
  return static_cast<int>(n);
}

inline void check_shape(char const* name, matrix_view<float const> m, std::size_t rows, std::size_t columns) {
  if (m.rows != rows || m.columns != columns) {
    throw shape_error("matrix '" + std::string(name) + "' is " + std::to_string(m.rows) + " x " +
                      std::to_string(m.columns) + ", needed is " + std::to_string(rows) + " x " +
                      std::to_string(columns));
  }
}

template <class T>
matrix_view<T> transposed(matrix_view<T> m) {
  return {m.data, m.columns, m.rows, m.column_stride, m.row_stride};
}

/// Whether `m` has contiguous columns that do not overlap.
template <class T>
bool is_column_major(matrix_view<T> m) {
  return (m.row_stride == 1 || m.rows <= 1) &&
         (m.columns <= 1 || m.column_stride >= static_cast<std::ptrdiff_t>(m.rows == 0 ? 1 : m.rows));
}

/// A matrix or its transpose by columns; a dense copy where the view is neither. For outputs, `write_back` ends the
/// work on a copy.
template <class T>
class column_major {
 public:
  explicit column_major(matrix_view<T> m) : origin_(m), view_(m) {
    if (!is_column_major(m) && !is_column_major(transposed(m))) {
      copy_.resize(m.rows * m.columns);
      for (std::size_t c = 0; c < m.columns; ++c) {
        for (std::size_t r = 0; r < m.rows; ++r) copy_[c * m.rows + r] = m(r, c);
      }
      view_ = {copy_.data(), m.rows, m.columns, 1, static_cast<std::ptrdiff_t>(m.rows)};
    }
    is_transposed_ = !is_column_major(view_);
    auto const stored = is_transposed_ ? transposed(view_) : view_;
    auto const smallest = stored.rows == 0 ? 1 : stored.rows;
    leading_ = fortran_int(stored.columns <= 1 ? smallest : static_cast<std::size_t>(stored.column_stride));
  }

  T* data() const { return view_.data; }
  int const* leading() const { return &leading_; }  ///< distance between columns of what is stored
  bool is_transposed() const { return is_transposed_; }
  char const* transposition() const { return is_transposed_ ? "T" : "N"; }
  matrix_view<T> view() const { return view_; }

  void write_back() const requires(!std::is_const_v<T>) {
    if (copy_.empty()) return;
    for (std::size_t r = 0; r < view_.rows; ++r) {
      for (std::size_t c = 0; c < view_.columns; ++c) origin_(r, c) = view_(r, c);
    }
  }

 private:
  matrix_view<T> origin_, view_;
  std::vector<std::remove_const_t<T>> copy_;
  bool is_transposed_ = false;
  int leading_ = 1;
};

}  // namespace prismaquant::detail
