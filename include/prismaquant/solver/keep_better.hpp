/// @file
/// What makes chains monotone: rows that a stage made worse stay as they came in.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>
#include <vector>

#include "prismaquant/solver/objective.hpp"

namespace prismaquant::detail {

/// What came in to a stage, and how good it is.
struct incoming {
  dense_matrix values, scales, zeros;
  std::vector<double> objectives;

  void swap(working_state& state) {
    std::swap(values, state.values);
    std::swap(scales, state.scales);
    std::swap(zeros, state.zeros);
  }
};

/// Puts back the rows of every unit that a stage made worse. Returns how many rows.
template <executor Executor>
std::size_t keep_better(incoming const& old, objective const& measure, working_state& state, std::vector<double>& after,
                        Executor& executor) {
  std::atomic<std::size_t> kept{0};
  auto const body = [&](std::size_t u, auto& inner) {
    double const before = old.objectives[u];
    bool worse = !(after[u] <= before);
    double const doubt =
        std::max(measure.uncertainty(state, state.values, u), measure.uncertainty(state, old.values, u));
    if (std::abs(after[u] - before) <= doubt) {  // products in float32 do not decide about that
      worse = measure.gain(state, old.values, u, inner) < 0.0;
      after[u] = std::min(after[u], before);
    }
    if (!worse) return;
    after[u] = before;
    std::size_t const first = u * measure.unit_rows(),
                      last = std::min(first + measure.unit_rows(), state.values.rows());
    kept += last - first;
    for (std::size_t r = first; r < last; ++r) {
      std::copy_n(old.values.row(r), state.values.columns(), state.values.row(r));
      std::copy_n(old.scales.row(r), state.scales.columns(), state.scales.row(r));
      if (state.zeros.rows() != 0) std::copy_n(old.zeros.row(r), state.zeros.columns(), state.zeros.row(r));
    }
  };
  if (after.size() == 1) {
    body(0, executor);
  } else {
    executor.for_ranges(after.size(), [&](std::size_t begin, std::size_t end) {
      serial_executor alone;
      for (std::size_t u = begin; u < end; ++u) body(u, alone);
    });
  }
  if (kept != 0) state.forget_slopes();
  return kept;
}

}  // namespace prismaquant::detail
