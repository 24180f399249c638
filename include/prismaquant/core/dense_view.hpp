/// @file
/// Views of dense matrices. Apart from `matrix_view`, because checking a length needs strings for its message, and
/// those cost a third of the compile time of a format's header.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "prismaquant/core/error.hpp"
#include "prismaquant/core/matrix_view.hpp"

namespace prismaquant {

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
