// Matrices laid out in memory in every way that a view can describe.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "prismaquant/core/matrix_view.hpp"

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
    for (stride const last : {row_stride * (static_cast<stride>(rows) - 1),
                              column_stride * (static_cast<stride>(columns) - 1)}) {
      (last < 0 ? lowest : highest) += last;
    }
  }
  std::size_t size() const { return static_cast<std::size_t>(highest - lowest) + 1; }
};

// A matrix and its memory, some of it before, between and behind the elements.
template <class T>
class arranged {
 public:
  arranged(arrangement const& how, std::size_t rows, std::size_t columns, std::size_t before, T filler)
      : memory_(before + extent(how, rows, columns).size() + 5, filler) {
    extent const e(how, rows, columns);
    view_ = {memory_.data() + before - e.lowest, rows, columns, e.row_stride, e.column_stride};
  }
  arranged(arranged const&) = delete;
  arranged& operator=(arranged const&) = delete;

  matrix_view<T> view() const { return view_; }
  std::vector<T> const& memory() const { return memory_; }

  // The elements, row by row, to and from a dense vector.
  void set(std::vector<T> const& dense) {
    for (std::size_t i = 0; i < dense.size(); ++i) view_(i / view_.columns, i % view_.columns) = dense[i];
  }
  std::vector<T> take(T filler) {
    std::vector<T> dense;
    for (std::size_t i = 0; i < view_.rows * view_.columns; ++i) {
      dense.push_back(std::exchange(view_(i / view_.columns, i % view_.columns), filler));
    }
    return dense;
  }

 private:
  std::vector<T> memory_;
  matrix_view<T> view_;
};

}  // namespace prismaquant::test
