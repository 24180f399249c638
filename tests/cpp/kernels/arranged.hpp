// Matrices laid out in memory in every way that a view can describe.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <vector>

#include "prismaquant/core/matrix_view.hpp"
#include "support/guarded.hpp"

namespace prismaquant::test {

// Strides of a matrix, as functions of its shape.
struct arrangement {
  char const* name;
  std::ptrdiff_t (*row_stride)(std::ptrdiff_t rows, std::ptrdiff_t columns);
  std::ptrdiff_t (*column_stride)(std::ptrdiff_t rows, std::ptrdiff_t columns);
};

using stride = std::ptrdiff_t;
inline constexpr std::array arrangements{
    arrangement{"dense", [](stride, stride n) { return n; }, [](stride, stride) { return stride{1}; }},
    arrangement{"rows apart", [](stride, stride n) { return n + 3; }, [](stride, stride) { return stride{1}; }},
    arrangement{"upside down", [](stride, stride n) { return -n; }, [](stride, stride) { return stride{1}; }},
    arrangement{"transposed", [](stride, stride) { return stride{1}; }, [](stride m, stride) { return m; }},
    arrangement{"every other", [](stride, stride n) { return 2 * n; }, [](stride, stride) { return stride{2}; }},
    arrangement{"reversed", [](stride, stride n) { return n; }, [](stride, stride) { return stride{-1}; }},
};

// How far a matrix reaches from its first element, in elements: lowest <= 0 <= highest.
struct extent {
  stride lowest = 0, highest = 0, row_stride = 0, column_stride = 0;

  extent(arrangement const& how, std::size_t rows, std::size_t columns)
      : row_stride(how.row_stride(static_cast<stride>(rows), static_cast<stride>(columns))),
        column_stride(how.column_stride(static_cast<stride>(rows), static_cast<stride>(columns))) {
    if (rows == 0 || columns == 0) return;
    for (stride const last :
         {row_stride * (static_cast<stride>(rows) - 1), column_stride * (static_cast<stride>(columns) - 1)}) {
      (last < 0 ? lowest : highest) += last;
    }
  }
  std::size_t size() const { return static_cast<std::size_t>(highest - lowest) + 1; }
};

// A matrix and its memory, which begins or ends at a page that cannot be accessed. What lies between the elements is
// filled with a byte.
template <class T>
class arranged {
 public:
  static constexpr unsigned char filler = 0x5a;

  arranged(arrangement const& how, std::size_t rows, std::size_t columns, bool at_start)
      : extent_(how, rows, columns), memory_(extent_.size() * sizeof(T), at_start) {
    std::memset(memory_.as<char>(), filler, extent_.size() * sizeof(T));
    view_ = {memory_.as<T>() - extent_.lowest, rows, columns, extent_.row_stride, extent_.column_stride};
  }

  matrix_view<T> view() const { return view_; }

  void set(std::vector<T> const& dense) {
    for (std::size_t i = 0; i < dense.size(); ++i) view_(i / view_.columns, i % view_.columns) = dense[i];
  }
  // The elements, row by row; filler takes their place.
  std::vector<T> take() {
    std::vector<T> dense(view_.rows * view_.columns);
    for (std::size_t i = 0; i < dense.size(); ++i) {
      auto& element = view_(i / view_.columns, i % view_.columns);
      dense[i] = element;
      std::memset(&element, filler, sizeof(T));
    }
    return dense;
  }
  // Whether there is nothing but filler.
  bool is_empty() const {
    auto const* const first = memory_.template as<unsigned char>();
    return std::all_of(first, first + extent_.size() * sizeof(T), [](unsigned char byte) { return byte == filler; });
  }

 private:
  extent extent_;
  guarded memory_;
  matrix_view<T> view_;
};

}  // namespace prismaquant::test
