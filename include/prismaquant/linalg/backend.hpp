/// @file
/// What solvers need of a linear algebra library.
#pragma once

#include <concepts>

#include "prismaquant/core/matrix_view.hpp"

namespace prismaquant {

/// Dense float32 linear algebra. Views may have any strides; an output never overlaps another argument. All functions
/// throw shape_error where shapes do not fit together, before anything is written. With a library that itself uses one
/// thread, as it should inside of an executor, results do not depend on the number of threads.
///
/// - `factor_inverse(h)`: h [n, n], symmetric and positive definite, becomes the upper triangular U with U'U = inverse
///   of h, zeros below its diagonal. False if h is not positive definite or has NaN; h is then unspecified.
/// - `invert_upper(u)`: the upper triangle of u [n, n] becomes that of its inverse; below the diagonal nothing is read
///   or written. False if there is none; u is then unspecified.
/// - `add_gram(x, h)`: h [n, n] += x'x, x [count, n]. h is symmetric before and exactly symmetric afterwards.
/// - `add_product(alpha, a, b, c)`: c [m, n] += alpha * a b, a [m, k], b [k, n].
template <class B>
concept linalg_backend = requires(B const& backend, float alpha, matrix_view<float const> input,
                                  matrix_view<float> output) {
  { backend.factor_inverse(output) } -> std::same_as<bool>;
  { backend.invert_upper(output) } -> std::same_as<bool>;
  backend.add_gram(input, output);
  backend.add_product(alpha, input, input, output);
};

}  // namespace prismaquant
