/// @file
/// `matrix_view`: a borrowed matrix, described by pointer, shape and signed element strides.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <type_traits>

#include "prismaquant/core/error.hpp"

namespace prismaquant {

/// A matrix that somebody else owns. `T` is const for inputs. Strides count elements, not bytes, and may be zero or
/// negative, so transposed, sliced and broadcast matrices need no copy. Never allocates, never throws.
template <class T>
struct matrix_view {
  using value_type = std::remove_const_t<T>;

  T* data = nullptr;
  std::size_t rows = 0;
  std::size_t columns = 0;
  std::ptrdiff_t row_stride = 0;
  std::ptrdiff_t column_stride = 1;

  /// Element at row `r`, column `c`; no bounds check.
  constexpr T& operator()(std::size_t r, std::size_t c) const noexcept {
    return data[static_cast<std::ptrdiff_t>(r) * row_stride + static_cast<std::ptrdiff_t>(c) * column_stride];
  }

  /// The `row_count` x `column_count` part that starts at row `r`, column `c`.
  constexpr matrix_view part(std::size_t r, std::size_t c, std::size_t row_count,
                             std::size_t column_count) const noexcept {
    return {data + static_cast<std::ptrdiff_t>(r) * row_stride + static_cast<std::ptrdiff_t>(c) * column_stride,
            row_count, column_count, row_stride, column_stride};
  }

  constexpr operator matrix_view<T const>() const noexcept requires(!std::is_const_v<T>) {
    return {data, rows, columns, row_stride, column_stride};
  }
};

/// A dense row-major matrix over `elements`.
/// @throws shape_error if the span does not hold exactly rows * columns elements.
template <class T>
matrix_view<T> view(std::span<T> elements, std::size_t rows, std::size_t columns) {
  if (elements.size() != rows * columns) {
    throw shape_error("a view of " + std::to_string(rows) + " x " + std::to_string(columns) + " needs " +
                      std::to_string(rows * columns) + " elements, the span holds " + std::to_string(elements.size()));
  }
  return {elements.data(), rows, columns, static_cast<std::ptrdiff_t>(columns), 1};
}

}  // namespace prismaquant
