/// @file
/// The certified optimum of many budgets.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "prismaquant/allocator/knapsack.hpp"
#include "prismaquant/allocator/problem.hpp"

namespace prismaquant {

/// `allocate` for each of `budgets`, which must increase. Losses do not increase: where the rounding of a search makes
/// a larger budget worse, the choice of the smaller one, which fits too, is kept with the bound of the larger one.
///
/// Memory: that of one search, and of one choice per budget.
/// @throws error, numeric_error, budget_error as `allocate` does; error if the budgets decrease.
inline std::vector<allocation> sweep(std::span<allocation_item const> items, std::span<std::int64_t const> budgets) {
  if (!std::is_sorted(budgets.begin(), budgets.end())) throw error("the budgets of a sweep must increase");
  std::vector<allocation> found;
  found.reserve(budgets.size());
  for (std::int64_t const budget : budgets) {
    auto best = allocate(items, budget);
    if (!found.empty() && best.loss > found.back().loss) {
      double const bound = std::min(best.lower_bound, found.back().loss);
      best = found.back();
      best.lower_bound = bound;
    }
    found.push_back(std::move(best));
  }
  return found;
}

}  // namespace prismaquant
