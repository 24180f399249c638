/// @file
/// Products of matrices in pieces that do not depend on the executor.
#pragma once

#include <algorithm>
#include <cstddef>

#include "prismaquant/core/executor.hpp"
#include "prismaquant/linalg/backend.hpp"

namespace prismaquant::detail {

/// Calls body(first, count) for rows in pieces of a fixed size.
template <executor Executor, class Body>
void for_pieces(std::size_t rows, Executor& executor, Body&& body) {
  constexpr std::size_t piece = 256;
  executor.for_ranges((rows + piece - 1) / piece, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) body(i * piece, std::min(piece, rows - i * piece));
  });
}

/// c += alpha a b. The bits of the result are the same for any number of threads, whatever the library rounds
/// differently at the edges of its own tiles.
template <linalg_backend Linalg, executor Executor>
void add_product(float alpha, matrix_view<float const> a, matrix_view<float const> b, matrix_view<float> c,
                 Linalg const& linalg, Executor& executor) {
  for_pieces(c.rows, executor, [&](std::size_t first, std::size_t count) {
    linalg.add_product(alpha, a.part(first, 0, count, a.columns), b, c.part(first, 0, count, c.columns));
  });
}

template <class T>
matrix_view<T> transposed_view(matrix_view<T> m) noexcept {
  return {m.data, m.columns, m.rows, m.column_stride, m.row_stride};
}

}  // namespace prismaquant::detail
