/// @file
/// The knapsack with further limits beside the bytes: a good choice, and a proven bound on how good it is.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "prismaquant/allocator/beam.hpp"
#include "prismaquant/allocator/hull.hpp"
#include "prismaquant/allocator/knapsack.hpp"
#include "prismaquant/allocator/lagrangian.hpp"
#include "prismaquant/allocator/problem.hpp"
#include "prismaquant/core/error.hpp"

namespace prismaquant {

/// A further limit: the uses of the chosen candidates must not sum to more than `limit`. Bytes read per token, bytes on
/// one device, operations in 16 bits: anything that adds up.
struct linear_constraint {
  std::vector<std::int64_t> uses;  ///< of every candidate of every item, one item after the other; not negative
  std::int64_t limit = 0;
};

/// The answer of `allocate` with constraints. `loss - lower_bound` is the proven gap.
struct constrained_allocation {
  std::vector<std::size_t> choice;  ///< for each item, the index of its chosen candidate
  std::int64_t bytes = 0;           ///< sum of the chosen bytes; never over the budget
  std::vector<std::int64_t> uses;   ///< of each constraint: the sum of the chosen uses; never over its limit
  double loss = 0;                  ///< sum of the chosen losses
  double lower_bound = 0;           ///< no choice within budget and limits has less loss; at most `loss`
};

namespace detail {

inline limited_problem with_limits(std::span<allocation_item const> items, std::int64_t budget_bytes,
                                   std::span<linear_constraint const> constraints) {
  limited_problem problem;
  problem.uses.resize(1);
  problem.limit.push_back(budget_bytes);
  for (auto const& item : items) {
    for (auto const& [bytes, loss] : item.candidates) {
      problem.loss.push_back(loss);
      problem.uses[0].push_back(bytes);
    }
    problem.first.push_back(problem.loss.size());
  }
  for (std::size_t k = 0; k < constraints.size(); ++k) {
    auto const& [uses, limit] = constraints[k];
    auto const fail = [&](std::string const& problem_text) {
      throw numeric_error("constraint " + std::to_string(k) + ": " + problem_text);
    };
    if (uses.size() != problem.loss.size()) {
      throw shape_error("constraint " + std::to_string(k) + " has " + std::to_string(uses.size()) + " uses for " +
                        std::to_string(problem.loss.size()) + " candidates");
    }
    std::int64_t least = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
      auto const begin = uses.begin() + static_cast<std::ptrdiff_t>(problem.first[i]);
      auto const end = uses.begin() + static_cast<std::ptrdiff_t>(problem.first[i + 1]);
      if (std::any_of(begin, end, [](std::int64_t use) { return use < 0 || use > byte_limit; })) {
        fail("item " + std::to_string(i) + " has a use that is negative or above 2^61");
      }
      least = add_bytes(least, *std::min_element(begin, end));
    }
    if (least > limit) {
      throw budget_error("the limit of constraint " + std::to_string(k) + " is " + std::to_string(limit) +
                             ", but the smallest choice needs " + std::to_string(least),
                         least);
    }
    problem.uses.push_back(uses);
    problem.limit.push_back(limit);
  }
  return problem;
}

}  // namespace detail

/// Chooses one candidate of each item, minimising the sum of losses under a budget of bytes and further limits.
///
/// Guarantees
/// - **Limits.** Bytes and uses never exceed them, in exact integer arithmetic.
/// - **Bound.** `lower_bound` holds for every choice within all limits, up to a relative 1e-12 for the rounding of its
/// sums.
/// - **Optimality.** If the choice that is best under the budget alone meets the limits, it is returned, with the proof
///   of `allocate`. Else `loss - lower_bound` is the proven gap; it is 0 where the search came to its end.
/// - **Determinism.** A function of the arguments on one machine and compiler; unlike `allocate`, it compares sums of
///   floating-point numbers, so that another instruction set may break a tie another way.
/// - **Memory.** Proportional to candidates times limits, plus the search: some 64 MiB at most for items of up to
///   16 candidates.
///
/// The further limits are priced as the budget is (Everett 1963: Generalized Lagrange multiplier method); at the best
/// prices (lagrangian.hpp) few items are in doubt, and these are searched (beam.hpp). Time: some hundred passes over
/// all candidates, and the search.
/// @throws error, numeric_error as `allocate` without constraints does; shape_error for uses that do not match the
/// candidates.
/// @throws budget_error if no choice meets one of the limits, or if none was found that meets all.
inline constrained_allocation allocate(std::span<allocation_item const> items, std::int64_t budget_bytes,
                                       std::span<linear_constraint const> constraints) {
  auto const alone = allocate(items, budget_bytes);
  auto const problem = detail::with_limits(items, budget_bytes, constraints);
  constrained_allocation result;
  auto const take = [&](auto const& option_of) {
    result.uses.assign(constraints.size(), 0);
    for (std::size_t i = 0; i < items.size(); ++i) {
      std::size_t const option = option_of(i);
      result.choice.push_back(option - problem.first[i]);
      result.bytes += problem.uses[0][option];
      for (std::size_t k = 0; k < constraints.size(); ++k) result.uses[k] += problem.uses[k + 1][option];
    }
  };
  take([&](std::size_t i) { return problem.first[i] + alone.choice[i]; });
  result.loss = alone.loss;
  result.lower_bound = alone.lower_bound;
  auto const meets = [&](std::size_t k) { return result.uses[k] <= constraints[k].limit; };
  std::size_t met = 0;
  while (met < constraints.size() && meets(met)) ++met;
  if (met == constraints.size()) return result;

  auto const relaxed = detail::best_prices(problem);
  auto const found = detail::beam_search(problem, relaxed, {}).run();
  if (found.chosen.empty() && !items.empty()) {
    throw budget_error("no choice was found that meets the budget and all constraints together", 0);
  }
  result = {};
  take([&](std::size_t i) { return found.chosen[i]; });
  result.loss = found.loss;
  result.lower_bound = std::min(found.loss, std::max(found.lower_bound, alone.lower_bound - alone.tolerance));
  return result;
}

}  // namespace prismaquant
