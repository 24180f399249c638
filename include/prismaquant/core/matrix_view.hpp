/// @file
/// `matrix_view`: a borrowed matrix, described by pointer, shape and signed element strides.
#pragma once

#include <cstddef>
#include <type_traits>

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

}  // namespace prismaquant
