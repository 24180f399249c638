/// @file
/// Linear algebra by Eigen (headers only, 3.3 or newer). The only header of the library that needs it; not part of the
/// umbrella header. Speed is that of the instruction set that this translation unit is compiled for.
#pragma once

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include "prismaquant/linalg/lapack_backend.hpp"

namespace prismaquant {

namespace detail {

template <class T>
using eigen_columns =
    Eigen::Map<std::conditional_t<std::is_const_v<T>, Eigen::MatrixXf const, Eigen::MatrixXf>, 0, Eigen::OuterStride<>>;

inline void eigen_sgemm(char const* transpose_a, char const* transpose_b, int const* m, int const* n, int const* k,
                        float const* alpha, float const* a, int const* leading_a, float const* b, int const* leading_b,
                        float const*, float* c, int const* leading_c) {
  bool const ta = *transpose_a == 'T', tb = *transpose_b == 'T';
  eigen_columns<float const> const left(a, ta ? *k : *m, ta ? *m : *k, Eigen::OuterStride<>(*leading_a));
  eigen_columns<float const> const right(b, tb ? *n : *k, tb ? *k : *n, Eigen::OuterStride<>(*leading_b));
  eigen_columns<float> out(c, *m, *n, Eigen::OuterStride<>(*leading_c));
  if (ta && tb) {
    out.noalias() += *alpha * left.transpose() * right.transpose();
  } else if (ta) {
    out.noalias() += *alpha * left.transpose() * right;
  } else if (tb) {
    out.noalias() += *alpha * left * right.transpose();
  } else {
    out.noalias() += *alpha * left * right;
  }
}

inline void eigen_ssyrk(char const*, char const* transpose, int const* n, int const* k, float const* alpha,
                        float const* a, int const* leading_a, float const*, float* c, int const* leading_c) {
  bool const t = *transpose == 'T';
  eigen_columns<float const> const input(a, t ? *k : *n, t ? *n : *k, Eigen::OuterStride<>(*leading_a));
  eigen_columns<float> out(c, *n, *n, Eigen::OuterStride<>(*leading_c));
  if (t) {
    out.selfadjointView<Eigen::Lower>().rankUpdate(input.transpose(), *alpha);
  } else {
    out.selfadjointView<Eigen::Lower>().rankUpdate(input, *alpha);
  }
}

template <int Triangle>
int eigen_cholesky(Eigen::Ref<Eigen::MatrixXf> matrix) {
  return Eigen::LLT<Eigen::Ref<Eigen::MatrixXf>, Triangle>(matrix).info() == Eigen::Success ? 0 : 1;
}

inline void eigen_spotrf(char const* triangle, int const* n, float* a, int const* leading, int* info) {
  eigen_columns<float> const matrix(a, *n, *n, Eigen::OuterStride<>(*leading));
  *info = *triangle == 'U' ? eigen_cholesky<Eigen::Upper>(matrix) : eigen_cholesky<Eigen::Lower>(matrix);
}

/// Eigen solves with triangles and does not invert them. By halves: off the diagonal of the inverse of (A B; 0 D)
/// stands -A^-1 B D^-1, likewise below it.
template <int Triangle>
void eigen_invert(Eigen::Ref<Eigen::MatrixXf> matrix) {
  constexpr Eigen::Index small = 32;
  Eigen::Index const n = matrix.rows();
  if (n <= small) {
    Eigen::MatrixXf const identity = Eigen::MatrixXf::Identity(n, n);
    Eigen::MatrixXf const inverse = matrix.triangularView<Triangle>().solve(identity);
    matrix.triangularView<Triangle>() = inverse;
    return;
  }
  Eigen::Index const half = n / 2, rest = n - half;
  auto first = matrix.topLeftCorner(half, half), last = matrix.bottomRightCorner(rest, rest);
  if constexpr (Triangle == Eigen::Upper) {
    auto between = matrix.topRightCorner(half, rest);
    first.template triangularView<Triangle>().template solveInPlace<Eigen::OnTheLeft>(between);
    last.template triangularView<Triangle>().template solveInPlace<Eigen::OnTheRight>(between);
    between = -between;
  } else {
    auto between = matrix.bottomLeftCorner(rest, half);
    last.template triangularView<Triangle>().template solveInPlace<Eigen::OnTheLeft>(between);
    first.template triangularView<Triangle>().template solveInPlace<Eigen::OnTheRight>(between);
    between = -between;
  }
  eigen_invert<Triangle>(first);
  eigen_invert<Triangle>(last);
}

inline void eigen_strtri(char const* triangle, char const*, int const* n, float* a, int const* leading, int* info) {
  eigen_columns<float> matrix(a, *n, *n, Eigen::OuterStride<>(*leading));
  *info = (matrix.diagonal().array() == 0.0f).any() ? 1 : 0;
  if (*info != 0) return;
  if (*triangle == 'U') {
    eigen_invert<Eigen::Upper>(matrix);
  } else {
    eigen_invert<Eigen::Lower>(matrix);
  }
}

}  // namespace detail

/// Eigen behind the interface of BLAS, as far as `lapack_backend` uses it.
struct eigen_backend : lapack_backend {
  eigen_backend()
      : lapack_backend{&detail::eigen_sgemm, &detail::eigen_ssyrk, &detail::eigen_spotrf, &detail::eigen_strtri} {}
};

static_assert(linalg_backend<eigen_backend>);

}  // namespace prismaquant
