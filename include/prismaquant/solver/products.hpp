/// @file
/// Products of matrices in pieces that do not depend on the executor.
#pragma once

#include <algorithm>
#include <cstddef>

#include "prismaquant/core/executor.hpp"
#include "prismaquant/linalg/backend.hpp"

namespace prismaquant::detail {

/// c += alpha a b. Rows of c are split into pieces of a fixed size, so that the bits of the result are the same for any
/// number of threads, whatever the library rounds differently at the edges of its own tiles.
template <linalg_backend Linalg, executor Executor>
void add_product(float alpha, matrix_view<float const> a, matrix_view<float const> b, matrix_view<float> c,
                 Linalg const& linalg, Executor& executor) {
  constexpr std::size_t piece = 256;
  executor.for_ranges((c.rows + piece - 1) / piece, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      std::size_t const first = i * piece, count = std::min(piece, c.rows - first);
      linalg.add_product(alpha, a.part(first, 0, count, a.columns), b, c.part(first, 0, count, c.columns));
    }
  });
}

template <class T>
matrix_view<T> transposed_view(matrix_view<T> m) noexcept {
  return {m.data, m.columns, m.rows, m.column_stride, m.row_stride};
}

}  // namespace prismaquant::detail
