/// @file
/// xtensor containers and strided views as `matrix_view`s, without copies. The only header that sees xtensor; both
/// include layouts (flat up to 0.25, folders since 0.26) work.
#pragma once

#if __has_include(<xtensor/containers/xarray.hpp>)
#include <xtensor/containers/xarray.hpp>
#include <xtensor/views/xview.hpp>
#else
#include <xtensor/xarray.hpp>
#include <xtensor/xview.hpp>
#endif

#include <string>
#include <type_traits>

#include "prismaquant/core/error.hpp"
#include "prismaquant/core/matrix_view.hpp"

namespace prismaquant {

/// Whether `E` has elements in memory that can be borrowed (a lazy expression has not: evaluate it with xt::eval).
template <class E>
concept strided_expression = requires(E& e) {
  e.data();
  e.shape();
  e.strides();
  e.data_offset();
};

/// Borrows a 2-D xtensor container or strided view. The expression must outlive the view.
/// @throws shape_error if it does not have two axes.
template <class E>
auto view(E& expression) {
  static_assert(strided_expression<E>, "a lazy xtensor expression has no memory to borrow: evaluate it with xt::eval");
  if (expression.dimension() != 2) {
    throw shape_error("an xtensor expression of " + std::to_string(expression.dimension()) +
                      " axes was given, expected 2 (rows, columns)");
  }
  using element = std::remove_pointer_t<decltype(expression.data())>;
  // xtensor gives stride 0 to axes of extent 1; they are never stepped along, so that needs no care here.
  return matrix_view<element>{expression.data() + expression.data_offset(), expression.shape()[0],
                              expression.shape()[1], static_cast<std::ptrdiff_t>(expression.strides()[0]),
                              static_cast<std::ptrdiff_t>(expression.strides()[1])};
}

}  // namespace prismaquant
