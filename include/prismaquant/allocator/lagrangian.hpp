/// @file
/// The Lagrangian relaxation of a knapsack with several limits: the prices of the limits at which its bound is highest.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace prismaquant::detail {

/// A multiple-choice problem with `limit.size()` limits. The options of item i are [first[i], first[i + 1]).
struct limited_problem {
  std::vector<std::size_t> first = {0};
  std::vector<double> loss;                     ///< of each option
  std::vector<std::vector<std::int64_t>> uses;  ///< of each limit: what each option takes of it
  std::vector<std::int64_t> limit;              ///< the sum of the chosen uses must not exceed it

  std::size_t size() const { return first.size() - 1; }
  std::size_t limits() const { return limit.size(); }
};

/// What each item chooses alone where limit k costs prices[k] per unit of use.
struct priced_choice {
  std::vector<double> prices;
  std::vector<std::size_t> chosen;  ///< of each item, the index of its option
  std::vector<std::int64_t> over;   ///< of each limit: the sum of the chosen uses minus the limit
  double loss = 0;
  double bound = -std::numeric_limits<double>::infinity();  ///< no choice within the limits has less loss

  /// Loss of an option plus the price of what it uses.
  double reduced(limited_problem const& problem, std::size_t option) const {
    double value = problem.loss[option];
    for (std::size_t k = 0; k < prices.size(); ++k) value += prices[k] * static_cast<double>(problem.uses[k][option]);
    return value;
  }
};

/// For any prices that are not negative, the sum of the least reduced losses minus the price of the limits is a bound.
inline priced_choice choose_at(limited_problem const& problem, std::vector<double> prices) {
  priced_choice result;
  result.prices = std::move(prices);
  result.over.resize(problem.limits());
  std::transform(problem.limit.begin(), problem.limit.end(), result.over.begin(), [](auto limit) { return -limit; });
  double sum = 0;
  double magnitude = 0;
  for (std::size_t i = 0; i < problem.size(); ++i) {
    std::size_t best = problem.first[i];
    double least = result.reduced(problem, best);
    for (std::size_t option = best + 1; option < problem.first[i + 1]; ++option) {
      if (double const value = result.reduced(problem, option); value < least) {
        least = value;
        best = option;
      }
    }
    result.chosen.push_back(best);
    result.loss += problem.loss[best];
    sum += least;
    magnitude += std::abs(least);
    for (std::size_t k = 0; k < problem.limits(); ++k) result.over[k] += problem.uses[k][best];
  }
  for (std::size_t k = 0; k < problem.limits(); ++k) {
    double const part = result.prices[k] * static_cast<double>(problem.limit[k]);
    sum -= part;
    magnitude += std::abs(part);
  }
  // What the rounding of so many additions can have added.
  result.bound = sum - magnitude * static_cast<double>(problem.size() + 8) * 0x1p-52;
  return result;
}

/// The prices at which the bound is highest, by the ellipsoid method: it needs supergradients only (`over` is one),
/// has nothing to tune, and says how far below the maximum it can still be. A few limits take a few hundred rounds.
/// Each round costs time proportional to the number of options times that of limits.
inline priced_choice best_prices(limited_problem const& problem) {
  std::size_t const n = problem.limits();
  // Beyond these prices a choice with the least use of a limit is better than any other.
  double range = 0;
  std::vector<double> slack(n);
  for (std::size_t k = 0; k < n; ++k) slack[k] = static_cast<double>(problem.limit[k]);
  for (std::size_t i = 0; i < problem.size(); ++i) {
    auto const options = [&](auto const& values) {
      return std::minmax_element(values.begin() + static_cast<std::ptrdiff_t>(problem.first[i]),
                                 values.begin() + static_cast<std::ptrdiff_t>(problem.first[i + 1]));
    };
    auto const [least, most] = options(problem.loss);
    range += *most - *least;
    for (std::size_t k = 0; k < n; ++k) slack[k] -= static_cast<double>(*options(problem.uses[k]).first);
  }
  std::vector<double> highest(n);
  for (std::size_t k = 0; k < n; ++k) highest[k] = range / std::max(1.0, slack[k]);

  auto const size = static_cast<double>(n);
  std::vector<double> center(n, 0.5);     // in units of `highest`
  std::vector<double> shape(n * n, 0.0);  // of the ellipsoid; first the ball around the box of all prices
  for (std::size_t k = 0; k < n; ++k) shape[k * n + k] = size / 4;
  std::vector<double> cut(n), step(n);
  auto best = choose_at(problem, std::vector<double>(n, 0.0));
  for (std::size_t round = 0; round < 200 * n * n; ++round) {
    auto const negative = std::find_if(center.begin(), center.end(), [](double value) { return value < 0; });
    bool const inside = negative == center.end();
    if (inside) {
      std::vector<double> prices(n);
      for (std::size_t k = 0; k < n; ++k) prices[k] = center[k] * highest[k];
      auto found = choose_at(problem, std::move(prices));
      for (std::size_t k = 0; k < n; ++k) cut[k] = static_cast<double>(found.over[k]) * highest[k];
      if (found.bound > best.bound) best = std::move(found);
    } else {
      std::fill(cut.begin(), cut.end(), 0.0);
      cut[static_cast<std::size_t>(negative - center.begin())] = 1;
    }
    double length = 0;
    for (std::size_t a = 0; a < n; ++a) {
      step[a] = 0;
      for (std::size_t b = 0; b < n; ++b) step[a] += shape[a * n + b] * cut[b];
      length += cut[a] * step[a];
    }
    length = std::sqrt(std::max(length, 0.0));
    // The bound is concave: inside the ellipsoid it is nowhere higher than here by more than `length`.
    if (length == 0 || (inside && length <= 1e-10 * std::abs(best.bound))) break;
    for (std::size_t a = 0; a < n; ++a) {
      step[a] /= length;
      center[a] += step[a] / (size + 1);
    }
    for (std::size_t a = 0; a < n; ++a) {
      for (std::size_t b = 0; b < n; ++b) {
        shape[a * n + b] = size * size / (size * size - 1) * (shape[a * n + b] - 2 / (size + 1) * step[a] * step[b]);
      }
    }
  }
  return best;
}

}  // namespace prismaquant::detail
