/// @file
/// Linear algebra by pointers to functions of any BLAS and LAPACK, so that none is linked twice into one program.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>

#include "prismaquant/linalg/backend.hpp"
#include "prismaquant/linalg/column_major.hpp"

namespace prismaquant {

/// Four functions with the Fortran interface and 32-bit integers, from whichever library the program uses already. They
/// must be safe to call from several threads at a time, as those of OpenBLAS, MKL and BLIS are.
struct lapack_backend {
  using sgemm_function = void(char const* transpose_a, char const* transpose_b, int const* m, int const* n,
                              int const* k, float const* alpha, float const* a, int const* leading_a, float const* b,
                              int const* leading_b, float const* beta, float* c, int const* leading_c);
  using ssyrk_function = void(char const* triangle, char const* transpose, int const* n, int const* k,
                              float const* alpha, float const* a, int const* leading_a, float const* beta, float* c,
                              int const* leading_c);
  using spotrf_function = void(char const* triangle, int const* n, float* a, int const* leading, int* info);
  using strtri_function = void(char const* triangle, char const* diagonal, int const* n, float* a, int const* leading,
                               int* info);

  sgemm_function* sgemm = nullptr;
  ssyrk_function* ssyrk = nullptr;
  spotrf_function* spotrf = nullptr;
  strtri_function* strtri = nullptr;

  /// See `linalg_backend`. With J the reversal of the order: JhJ = LL' (Cholesky), hence h = (JLJ)(JLJ)', a product of
  /// an upper triangle and its transpose, and U = (JLJ)^-1 = J L^-1 J. One factorisation and one triangular inverse,
  /// 2/3 n^3 operations in place, where Cholesky of the explicit inverse takes 4/3 n^3.
  bool factor_inverse(matrix_view<float> h) const {
    detail::check_shape("h", h, h.rows, h.rows);
    if (h.rows == 0) return true;
    reverse(h);
    detail::column_major<float> const stored(h);
    // L, seen by rows, lies below the diagonal: of the transpose, which is what a view by rows stores, above it.
    char const* const triangle = stored.is_transposed() ? "U" : "L";
    int const n = detail::fortran_int(h.rows);
    int info = 0;
    spotrf(triangle, &n, stored.data(), stored.leading(), &info);
    if (info == 0) strtri(triangle, "N", &n, stored.data(), stored.leading(), &info);
    if (info != 0 || !has_finite_diagonal(stored.view())) return false;
    stored.write_back();
    reverse(h);
    for (std::size_t r = 1; r < h.rows; ++r) {
      for (std::size_t c = 0; c < r; ++c) h(r, c) = 0.0f;
    }
    return true;
  }

  bool invert_upper(matrix_view<float> u) const {
    detail::check_shape("u", u, u.rows, u.rows);
    if (u.rows == 0) return true;
    detail::column_major<float> const stored(u);
    int const n = detail::fortran_int(u.rows);
    int info = 0;
    strtri(stored.is_transposed() ? "L" : "U", "N", &n, stored.data(), stored.leading(), &info);
    if (info != 0 || !has_finite_diagonal(stored.view())) return false;
    stored.write_back();
    return true;
  }

  void add_gram(matrix_view<float const> x, matrix_view<float> h) const {
    detail::check_shape("h", h, x.columns, x.columns);
    if (x.rows == 0 || x.columns == 0) return;
    detail::column_major<float const> const input(x);
    detail::column_major<float> const output(h);
    int const n = detail::fortran_int(x.columns), k = detail::fortran_int(x.rows);
    float const one = 1.0f;
    // x by rows is x' by columns: then x'x is the product of what is stored with its transpose.
    ssyrk("L", input.is_transposed() ? "N" : "T", &n, &k, &one, input.data(), input.leading(), &one, output.data(),
          output.leading());
    mirror(output.is_transposed() ? detail::transposed(output.view()) : output.view());
    output.write_back();
  }

  void add_product(float alpha, matrix_view<float const> a, matrix_view<float const> b, matrix_view<float> c) const {
    detail::check_shape("b", b, a.columns, b.columns);
    detail::check_shape("c", c, a.rows, b.columns);
    if (c.rows == 0 || c.columns == 0 || a.columns == 0) return;
    detail::column_major<float> const output(c);
    if (output.is_transposed()) {  // c' = b'a'
      std::swap(a, b);
      a = detail::transposed(a);
      b = detail::transposed(b);
    }
    detail::column_major<float const> const left(a), right(b);
    int const m = detail::fortran_int(a.rows), n = detail::fortran_int(b.columns), k = detail::fortran_int(a.columns);
    float const one = 1.0f;
    sgemm(left.transposition(), right.transposition(), &m, &n, &k, &alpha, left.data(), left.leading(), right.data(),
          right.leading(), &one, output.data(), output.leading());
    output.write_back();
  }

 private:
  /// Rows and columns in reversed order.
  static void reverse(matrix_view<float> m) {
    std::size_t const n = m.rows, half = n / 2;
    for (std::size_t r = 0; r < half; ++r) {
      for (std::size_t c = 0; c < n; ++c) std::swap(m(r, c), m(n - 1 - r, n - 1 - c));
    }
    if (n % 2 == 0) return;
    for (std::size_t c = 0; c < half; ++c) std::swap(m(half, c), m(half, n - 1 - c));
  }

  /// Not every LAPACK notices NaN; it always reaches the diagonal.
  static bool has_finite_diagonal(matrix_view<float const> m) {
    for (std::size_t i = 0; i < m.rows; ++i) {
      if (!std::isfinite(m(i, i))) return false;
    }
    return true;
  }

  /// Copies the lower triangle to the upper one, tile by tile: a column at a time would miss every cache.
  static void mirror(matrix_view<float> m) {
    constexpr std::size_t tile = 32;
    for (std::size_t c0 = 0; c0 < m.columns; c0 += tile) {
      for (std::size_t r0 = c0; r0 < m.rows; r0 += tile) {
        for (std::size_t c = c0; c < std::min(c0 + tile, m.columns); ++c) {
          for (std::size_t r = std::max(r0, c + 1); r < std::min(r0 + tile, m.rows); ++r) m(c, r) = m(r, c);
        }
      }
    }
  }
};

static_assert(linalg_backend<lapack_backend>);

}  // namespace prismaquant
