/// @file
/// The gradient of the one-sided objective.
#pragma once

#include "prismaquant/solver/damping.hpp"
#include "prismaquant/solver/products.hpp"

namespace prismaquant::detail {

/// state.slopes = (values - target) H, unless they are known.
template <linalg_backend Linalg, executor Executor>
void update_slopes(working_state& state, damped_gram const& h, Linalg const& linalg, Executor& executor) {
  std::size_t const rows = state.target.rows(), columns = state.target.columns();
  if (state.slopes.rows() != 0) return;
  state.slopes = dense_matrix(rows, columns);
  for_pieces(rows, executor, [&](std::size_t first, std::size_t count) {
    dense_matrix deviations(count, columns);
    for (std::size_t r = 0; r < count; ++r) {
      float const *const values = state.values.row(first + r), *const target = state.target.row(first + r);
      for (std::size_t c = 0; c < columns; ++c) deviations.row(r)[c] = values[c] - target[c];
    }
    linalg.add_product(1.0f, std::as_const(deviations).view(), h.view(),
                       state.slopes.view().part(first, 0, count, columns));
  });
}

}  // namespace prismaquant::detail
