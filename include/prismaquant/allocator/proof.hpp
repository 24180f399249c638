/// @file
/// The proof of optimality, as a ledger: the best choice known on one side, the least that anything not looked at could
/// cost on the other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <tuple>

#include "prismaquant/allocator/relaxation.hpp"

namespace prismaquant::detail {

/// A set of changes to the relaxed choice, at most one per item.
struct state {
  static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

  std::int64_t over;            ///< weight minus slack: the state is a choice that fits if this is not positive
  std::int64_t cost;            ///< minus that of the relaxed choice
  std::uint32_t parent = none;  ///< where the changes before the last are remembered
  std::uint32_t option = none;  ///< the last change while it is not remembered yet
};

/// Relative to `base` = the relaxed choice's cost + price * over, a choice with sum of regrets r costs
/// base + r - price * over, exactly; the *excess* is what comes after base. A choice that fits has an excess of at
/// least r.
class proof {
 public:
  proof(scaled_problem const& problem, relaxation const& relaxed)
      : problem_(problem), relaxed_(relaxed), best_{.over = relaxed.over, .cost = 0} {
    if (relaxed.noise > one() / 2) settle();
  }

  state const& best() const { return best_; }

  /// A state that fits becomes the best one if it costs less, or the same with less weight.
  void offer(state const& s) {
    if (s.over <= 0 && std::tie(s.cost, s.over) < std::tie(best_.cost, best_.over)) best_ = s;
  }

  /// The best state is `s`, which is the same set of changes in other words.
  void rename_best(state const& s) { best_ = s; }

  wide regret(state const& s) const { return relaxed_.price.reduced(s.cost, s.over - relaxed_.over); }

  /// Whether no choice with at least this sum of regrets, over all or some of its changes, is better than the best one.
  ///
  /// Costs and weights are whole. A better choice costs at least one less, and its bound is that much below the gap; or
  /// it costs the same and weighs at least one less, and its bound is below the gap by the price of the weight that it
  /// leaves over beyond the stranded one.
  bool pointless(wide regret) const {
    wide const lighter = relaxed_.price.numerator * std::max<std::int64_t>(0, 1 - best_.over - stranded_);
    return bound(regret) > gap() - std::min(one(), lighter) - tolerance_;
  }

  /// No choice with at least this sum of regrets will be looked at.
  void skip(wide regret) { skipped_ = std::min(skipped_, bound(regret)); }

  /// No choice that will be looked at can use the last `weight` of the slack.
  void strand(std::int64_t weight) { stranded_ = std::max(stranded_, weight); }
  std::int64_t stranded() const { return stranded_; }

  /// From now on, differences that rounding can account for are not chased.
  void settle() { tolerance_ = wide{problem_.tolerance()} << relaxed_.price.shift; }

  /// The cost of the best choice known.
  std::int64_t cost() const { return relaxed_.cost + best_.cost; }

  /// No choice that fits costs less. Rounded up, since costs are whole.
  std::int64_t lower_bound() const {
    wide const least = relaxed_.price.reduced(relaxed_.cost, relaxed_.over) + std::min(skipped_, gap());
    return static_cast<std::int64_t>((least + one() - 1) >> relaxed_.price.shift);
  }

 private:
  /// One step of cost.
  wide one() const { return wide{1} << relaxed_.price.shift; }

  /// The excess of the best choice known.
  wide gap() const { return relaxed_.price.reduced(best_.cost, -relaxed_.over); }

  /// A lower bound of the excess: changes that are not in the sum add at least -noise.
  wide bound(wide regret) const { return regret - relaxed_.noise + relaxed_.price.numerator * stranded_; }

  scaled_problem const& problem_;
  relaxation const& relaxed_;
  state best_;
  wide skipped_ = unreachable;  ///< least bound of anything skipped
  wide tolerance_ = 0;
  std::int64_t stranded_ = 0;
};

}  // namespace prismaquant::detail
