/// @file
/// The exact multiple-choice knapsack.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "prismaquant/allocator/hull.hpp"
#include "prismaquant/allocator/multiplier.hpp"
#include "prismaquant/allocator/problem.hpp"
#include "prismaquant/allocator/relaxation.hpp"
#include "prismaquant/allocator/scaled.hpp"
#include "prismaquant/allocator/search.hpp"
#include "prismaquant/core/error.hpp"

namespace prismaquant {

namespace detail {

/// Changes that one search may remember: 8 bytes each, 128 MiB in all.
inline constexpr std::size_t change_limit = std::size_t{1} << 24;

inline allocation allocate(std::span<allocation_item const> items, std::int64_t budget_bytes,
                           std::size_t search_limit) {
  std::int64_t const minimum = check_items(items);
  if (minimum > budget_bytes) {
    throw budget_error("the budget is " + std::to_string(budget_bytes) + " bytes, but the smallest choice needs " +
                           std::to_string(minimum),
                       minimum);
  }
  std::int64_t const slack = budget_bytes - minimum;
  auto const options = build_menu(items, slack);
  double const slope = break_slope(options, slack);
  auto const problem = scale(options, budget_bytes, slope);
  auto relaxed = relax_within_slack(problem, slope);
  fill_ties(problem, relaxed);
  auto const found = core_search(problem, relaxed, search_limit).run();

  allocation result;
  result.choice.reserve(items.size());
  result.bytes = problem.base_bytes;
  for (std::uint32_t const index : found.chosen) {
    auto const& option = problem.options[index];
    result.choice.push_back(option.candidate);
    result.bytes += option.weight * problem.byte_step;
  }
  result.loss = std::ldexp(static_cast<double>(found.cost), problem.exponent);
  result.lower_bound = std::ldexp(static_cast<double>(found.lower_bound), problem.exponent);
  result.states = found.states;
  result.tolerance = std::ldexp(static_cast<double>(problem.tolerance()), problem.exponent);
  return result;
}

}  // namespace detail

/// Chooses one candidate of each item, minimising the sum of losses under a budget of bytes, to proven optimality.
///
/// Guarantees
/// - **Budget.** `bytes <= budget_bytes`, in exact integer arithmetic.
/// - **Bound.** Losses are rounded once, to whole multiples of a power of two (about 2^-60 of the sum of each item's
///   largest loss, after dropping losses that alone exceed that of a choice known to fit). From there on all is exact
///   integer arithmetic. `lower_bound` is computed from what the search did not look at: no choice within the budget
///   has a smaller sum of rounded losses.
/// - **Optimality.** `loss == lower_bound`, the exact optimum of the rounded losses, with two exceptions. Where many
///   items tie but for rounding (losses proportional to size), differences below `tolerance` are not chased, and
///   `loss - lower_bound <= tolerance`. Where the search would exceed its memory, the best choice found is returned,
///   and the bound tells how good it is. Without the second exception the sum of the given losses is at most
///   `2 * tolerance` above its optimum; `tolerance` is at most (6 * items + 4096) * 2^-59 of the sum named above.
/// - **Ties.** But for the exceptions, of the choices with the smallest sum of rounded losses one with the fewest bytes
///   is returned. Of candidates of one item with equal bytes and loss, it is the first. Between different choices equal
///   in both sums, which one is not said, only that it is always the same.
/// - **Determinism.** The result is a function of the arguments: the same on every machine and with every standard
///   library. But for the exceptions, `bytes` and `loss` do not depend on the order of items or candidates either.
/// - **Memory.** Proportional to the number of candidates, plus the search: three lists of at most 2^21 states of 24
///   bytes (`states` is the longest) and at most 2^24 remembered changes of 8 bytes. Random and real instances need
///   less than 1 MiB of that; subset-sum problems in disguise, with large and unrelated bytes, reach it.
///
/// The story
/// 1. *Hull.* Of each item only the Pareto list matters, and mostly its lower convex hull (hull.hpp).
/// 2. *Multiplier.* Buying hull segments from the steepest down, the budget runs out in one segment. Its slope is the
///    price of a byte. Found by partitioning, not by sorting (multiplier.hpp).
/// 3. *Integers.* Losses become multiples of one power of two (scaled.hpp).
/// 4. *Relaxation.* At that price each item chooses alone. The sum is a lower bound for every choice that fits, and
///    each other option has a regret: what taking it adds to the bound (relaxation.hpp).
/// 5. *Core.* The relaxed choice, improved greedily, leaves a gap of some 1e-5. Only options with less regret than the
///    gap can be part of something better. Items are expanded in order of regret into a list of undominated states; the
///    gap shrinks, the regret of the next item grows, and where they meet the proof is done (search.hpp, proof.hpp).
///
/// An empty problem has an empty choice of 0 bytes and no loss.
/// @throws error if an item has no candidates.
/// @throws numeric_error for a loss that is NaN, infinite or negative, for negative bytes, and if the bytes of the
/// items (all their smallest candidates, or all their largest that could matter) sum to more than 2^61.
/// @throws budget_error if no choice fits; its `minimum` is the smallest budget that would do.
inline allocation allocate(std::span<allocation_item const> items, std::int64_t budget_bytes) {
  return detail::allocate(items, budget_bytes, detail::change_limit);
}

}  // namespace prismaquant
