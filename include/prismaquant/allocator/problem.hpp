/// @file
/// The words of the allocator: what is chosen from (candidate, allocation_item) and what comes out (allocation).
///
/// Numbers in, numbers out: an item is whatever must be decided as one, a candidate is one way to store it. Whether the
/// numbers came from a Linear, an expert bank or a test is not known here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace prismaquant {

/// One way to store an item. `bytes` must not be negative; `loss` (expected KL divergence, in nats per token) must be
/// finite and not negative. Any other additive quantity may stand for `bytes` (microseconds, say).
struct candidate {
  std::int64_t bytes = 0;
  double loss = 0;
};

/// A multiple-choice item: exactly one of its candidates is chosen. Candidates may come in any order, be dominated, and
/// be equal to each other.
struct allocation_item {
  std::vector<candidate> candidates;
};

/// The answer of `allocate`, where the guarantees are.
///
/// `loss` and `lower_bound` are sums of losses rounded to one power of two before the search. They may be compared with
/// `==`: equal means that the choice is proven optimal for these; `loss - lower_bound <= tolerance` means optimal up to
/// what rounding can account for.
struct allocation {
  std::vector<std::size_t> choice;  ///< for each item, the index of its chosen candidate
  std::int64_t bytes = 0;           ///< sum of the chosen bytes, exact; never over the budget
  double loss = 0;                  ///< sum of the chosen losses, up to the rounding
  double lower_bound = 0;           ///< no choice within the budget has less loss, up to the same rounding
  std::size_t states = 0;           ///< the longest list of partial choices that the search held
  double tolerance = 0;             ///< the difference of two sums of losses that rounding can account for
};

}  // namespace prismaquant
