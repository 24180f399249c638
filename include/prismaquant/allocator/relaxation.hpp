/// @file
/// The Lagrangian relaxation: with a price on every byte each item decides alone, and the sum of these decisions bounds
/// every choice that fits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "prismaquant/allocator/scaled.hpp"

#ifndef __SIZEOF_INT128__
#error "prismaquant/allocator needs a compiler with __int128 (GCC, Clang)"
#endif

namespace prismaquant::detail {

/// Sums of costs and weights at a fractional price need more than 64 bits to stay exact.
__extension__ typedef __int128 wide;

/// A price of weight, numerator * 2^-shift. Any price gives true bounds; one of 62 bits makes items that are equal, or
/// differ by a factor only, come out as equally good up to their noise.
struct weight_price {
  wide numerator = 0;
  int shift = 0;

  /// cost + price * weight, in steps of 2^-shift. Below 2^123 in magnitude for sums over any items.
  wide reduced(std::int64_t cost, std::int64_t weight) const {
    return wide{cost} * (wide{1} << shift) + numerator * weight;
  }
};

/// Above any reduced cost, and small enough that one of those can be added to it.
inline constexpr wide unreachable = wide{1} << 125;

/// A choice near the optimum of the relaxation, in which the reduced cost of each item is minimised alone.
///
/// The *regret* of an option is its reduced cost minus that of the chosen option of its item. Changing a choice changes
/// cost + price * weight by the sum of regrets, exactly. No regret is below minus the noise of its item, and the sum of
/// all negative ones is at least -noise; noise is 0 but for choices among ties, see fill_ties.
struct relaxation {
  weight_price price;
  std::vector<std::uint32_t> chosen;  ///< per item an index into scaled_problem::options
  std::vector<wide> regret;           ///< per item the least regret of any other option, or unreachable
  std::int64_t cost = 0;              ///< of the chosen options
  std::int64_t over = 0;              ///< weight of the chosen options minus slack: they fit if this is not positive
  wide noise = 0;
};

/// The regret of changing from option `from` to option `to`.
inline wide regret_of(weight_price const& price, scaled_option const& from, scaled_option const& to) {
  return price.reduced(to.cost - from.cost, to.weight - from.weight);
}

/// Minimises the reduced cost of each item; of equals the lightest option.
inline relaxation relax(scaled_problem const& problem, weight_price const& price) {
  relaxation result;
  result.price = price;
  result.chosen.resize(problem.size());
  result.regret.resize(problem.size());
  result.over = -problem.slack;
  for (std::size_t i = 0; i < problem.size(); ++i) {
    std::size_t best = problem.first[i];
    wide least = price.reduced(problem.options[best].cost, problem.options[best].weight);
    wide second = unreachable + least;
    for (std::size_t k = best + 1; k < problem.first[i + 1]; ++k) {
      wide const value = price.reduced(problem.options[k].cost, problem.options[k].weight);
      if (value < least) {
        second = least;
        least = value;
        best = k;
      } else {
        second = std::min(second, value);
      }
    }
    result.chosen[i] = static_cast<std::uint32_t>(best);
    result.regret[i] = second - least;
    result.cost += problem.options[best].cost;
    result.over += problem.options[best].weight;
  }
  return result;
}

/// How near the price is to one at which an item would change its mind.
struct near_ties {
  wide raise = unreachable;  ///< least raise that makes a lighter option as good as the chosen one
  wide cut = unreachable;    ///< greatest cut that makes no heavier option better than the chosen one
  std::size_t items = 0;     ///< items in which another option is as good up to noise; only they are looked at
};

inline near_ties find_near_ties(scaled_problem const& problem, relaxation const& relaxed) {
  near_ties result;
  for (std::size_t i = 0; i < problem.size(); ++i) {
    if (relaxed.regret[i] > wide{problem.noise(i)} << relaxed.price.shift) continue;
    ++result.items;
    auto const& from = problem.options[relaxed.chosen[i]];
    for (std::size_t k = problem.first[i]; k < problem.first[i + 1]; ++k) {
      wide const regret = regret_of(relaxed.price, from, problem.options[k]);
      std::int64_t const weight = problem.options[k].weight - from.weight;
      if (weight < 0) result.raise = std::min(result.raise, (regret - weight - 1) / -weight);
      if (weight > 0) result.cut = std::min(result.cut, regret / weight);
    }
  }
  return result;
}

/// The relaxation at a price near `multiplier` (break_slope: loss per byte) at which its choice fits.
///
/// The slope is that of the given losses, rounded. If at this price the items are over the slack, it is mostly by one;
/// the price is raised to where that changes, or by growing steps. From largest / slack + 1 on every choice fits:
/// weight 0 costs `largest`, and what is cheaper cannot weigh more than the slack. If several items are near a tie,
/// the price is cut to where they tie to the last bit, so that equal items get a bound without noise.
inline relaxation relax_within_slack(scaled_problem const& problem, double multiplier) {
  std::int64_t const highest = problem.slack > 0 ? problem.largest / problem.slack + 1 : 1;
  double const scaled = std::ldexp(multiplier, -problem.exponent) * static_cast<double>(problem.byte_step);
  weight_price price;
  if (scaled < static_cast<double>(highest)) {
    int exponent = 0;
    std::frexp(scaled, &exponent);
    price.shift = std::clamp(62 - exponent, 0, 60);
    price.numerator = static_cast<std::int64_t>(std::ceil(std::ldexp(scaled, price.shift)));
  } else {
    price.numerator = highest;
  }
  wide const end = wide{highest} << price.shift;
  for (wide step = std::max<wide>(1, price.numerator >> 52);; step *= 2) {
    auto result = relax(problem, price);
    auto const ties = find_near_ties(problem, result);
    if (result.over > 0) {
      price.numerator =
          std::min(price.numerator + (ties.raise == unreachable ? step : std::max(step, ties.raise)), end);
      continue;
    }
    if (ties.items > 1 && ties.cut > 0 && ties.cut < price.numerator) {
      price.numerator -= ties.cut;
      if (auto exact = relax(problem, price); exact.over <= 0) return exact;
    }
    return result;
  }
}

/// Spends the slack on options that are as good as the chosen ones up to the noise of their item.
///
/// Where many items are equal or differ by a factor only, they all break at the same slope. The relaxed choice then
/// takes the lighter option of every one of them and may be far below the budget; this brings it near.
inline void fill_ties(scaled_problem const& problem, relaxation& relaxed) {
  if (relaxed.price.numerator == 0) return;
  for (std::size_t i = 0; i < problem.size(); ++i) {
    wide const limit = wide{problem.noise(i)} << relaxed.price.shift;
    if (relaxed.regret[i] > limit) continue;
    auto const& options = problem.options;
    std::uint32_t const from = relaxed.chosen[i];
    for (auto to = static_cast<std::uint32_t>(problem.first[i + 1] - 1); to > from; --to) {
      wide const regret = regret_of(relaxed.price, options[from], options[to]);
      if (regret > limit || options[to].weight - options[from].weight > -relaxed.over) continue;
      relaxed.chosen[i] = to;
      relaxed.regret[i] = -regret;  // going back; nothing is below the old choice
      relaxed.noise += regret;
      relaxed.cost += options[to].cost - options[from].cost;
      relaxed.over += options[to].weight - options[from].weight;
      break;
    }
  }
}

}  // namespace prismaquant::detail
