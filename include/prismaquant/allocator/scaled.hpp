/// @file
/// The problem in integers: losses as whole multiples of one power of two, so that the search compares and adds without
/// rounding and its proof holds in every order of work.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "prismaquant/allocator/hull.hpp"

namespace prismaquant::detail {

/// A number `mantissa * 2^exponent`.
struct binary_number {
  std::int64_t mantissa;
  int exponent;
};

/// An upper bound of a sum of losses, at most 2^-19 of the largest loss per term too high. It does not depend on the
/// order of the losses.
inline binary_number bound_sum(std::span<double const> losses) {
  double const largest = losses.empty() ? 0 : *std::max_element(losses.begin(), losses.end());
  if (largest == 0) return {0, 0};
  int exponent = 0;
  std::frexp(largest, &exponent);
  std::int64_t sum = 0;
  for (double const loss : losses) {
    if (loss > 0) sum += static_cast<std::int64_t>(std::ldexp(loss, 20 - exponent)) + 1;
  }
  return {sum, exponent - 20};
}

struct scaled_option {
  std::int64_t weight;  ///< bytes above the smallest option of the item, in steps of byte_step
  std::int64_t cost;    ///< loss in steps of 2^exponent
  std::uint32_t candidate;
};

/// Minimise the sum of costs under sum of weights <= slack, one option per item. In an item weights strictly increase
/// from 0 and costs do not increase. No weight exceeds the slack. `largest`, the sum of each item's largest cost, is
/// below 2^61.
struct scaled_problem {
  std::vector<scaled_option> options;
  std::vector<std::size_t> first = {0};
  std::int64_t slack = 0;
  std::int64_t base_bytes = 0;  ///< the bytes of weight 0
  std::int64_t byte_step = 1;   ///< the greatest common divisor of all differences of bytes
  std::int64_t largest = 0;
  int exponent = 0;

  std::size_t size() const { return first.size() - 1; }

  /// Differences of an item's costs that rounding can account for: that of its losses to whole steps, and a few units
  /// in the last place of the doubles they and their slope were before. The sum of all is at most 2 * size() + 2^10.
  std::int64_t noise(std::size_t item) const { return 2 + (options[first[item]].cost >> 50); }
  /// The largest difference of sums that the search does not chase: three times the sum of all noise, since a gap is
  /// the noise of the choice that bounds it, of the best choice, and of what was dropped.
  std::int64_t tolerance() const { return 6 * static_cast<std::int64_t>(size()) + 4096; }
};

/// The best loss per item that buys all hull segments steeper than `multiplier`, a choice that fits: the upper bound
/// that says which options are out of the question.
inline double bound_loss(menu const& items, double multiplier) {
  std::vector<double> losses(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    for (auto const& option : items.item(i)) {
      if (option.slope > multiplier) losses[i] = option.loss;
    }
  }
  auto const bound = bound_sum(losses);
  return std::ldexp(static_cast<double>(bound.mantissa), bound.exponent);
}

/// Rounds a scaled loss to the nearest integer, halves up, in every rounding mode.
inline std::int64_t round_half_up(double value) {
  auto const whole = static_cast<std::int64_t>(value);
  return whole + (value - static_cast<double>(whole) >= 0.5 ? 1 : 0);
}

/// Scales a feasible problem; `multiplier` is its break_slope.
///
/// An option whose loss alone exceeds that of a known choice is dropped first. It is in no optimum, and were it kept, a
/// sentinel such as 1e30 would take the resolution away from the losses that matter. The unit is the power of two that
/// maps the sum of each item's largest remaining loss into 60 bits, but at least 2^-1000.
inline scaled_problem scale(menu const& items, std::int64_t budget, double multiplier) {
  double const too_lossy = bound_loss(items, multiplier);
  scaled_problem result;
  std::vector<std::size_t> start(items.size());
  std::vector<double> largest(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    auto const list = items.item(i);
    while (list[start[i]].loss > too_lossy) ++start[i];
    largest[i] = list[start[i]].loss;
    result.base_bytes = add_bytes(result.base_bytes, list[start[i]].bytes);
  }
  result.slack = budget - result.base_bytes;

  auto const total = bound_sum(largest);
  auto const width = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(total.mantissa)));
  result.exponent = total.mantissa == 0 ? -1000 : std::max(-1000, total.exponent + width - 60);
  double const units = std::ldexp(1.0, -result.exponent);

  result.options.reserve(items.options.size());
  result.first.reserve(items.size() + 1);
  std::int64_t divisor = 0;
  std::int64_t heaviest = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    auto const list = items.item(i).subspan(start[i]);
    for (auto const& option : list) {
      std::int64_t const weight = option.bytes - list.front().bytes;
      if (weight > result.slack) break;
      result.options.push_back({weight, round_half_up(option.loss * units), option.candidate});
      if (divisor != 1) divisor = std::gcd(divisor, weight);
    }
    result.first.push_back(result.options.size());
    result.largest += result.options[result.first[i]].cost;
    heaviest = add_bytes(heaviest, result.options.back().weight);
  }
  // In steps of the divisor the slack is what choices can really use; the rest would be a gap that no search closes.
  result.byte_step = std::max<std::int64_t>(1, divisor);
  result.slack = std::min(result.slack, heaviest) / result.byte_step;
  if (result.byte_step > 1) {
    for (auto& option : result.options) option.weight /= result.byte_step;
  }
  return result;
}

}  // namespace prismaquant::detail
