/// @file
/// Seeded allocation problems and slow, obvious solvers to compare with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "prismaquant/allocator/problem.hpp"

namespace instances {

using prismaquant::allocation_item;
using prismaquant::candidate;

/// A 64-bit generator and the few distributions the tests need: those of the standard library are not the same
/// everywhere.
class source {
 public:
  explicit source(std::uint64_t seed) : engine_(seed) {}

  std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(engine_() % static_cast<std::uint64_t>(n)); }
  double uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }
  double normal() {
    double const radius = std::sqrt(-2 * std::log(1 - uniform()));
    return radius * std::cos(2 * std::acos(-1.0) * uniform());
  }
  template <class T>
  void shuffle(std::vector<T>& values) {
    for (std::size_t i = values.size(); i > 1; --i) {
      std::swap(values[i - 1], values[static_cast<std::size_t>(below(static_cast<std::int64_t>(i)))]);
    }
  }

 private:
  std::mt19937_64 engine_;
};

/// A few items of a few candidates from a small range, so that ties, equal bytes, zero losses, duplicates and dominated
/// candidates are common. Losses are multiples of 2^-10, so that sums of them are exact.
inline std::vector<allocation_item> small(source& random) {
  std::vector<allocation_item> items(static_cast<std::size_t>(1 + random.below(8)));
  std::int64_t const byte_range = 1 + random.below(40);
  std::int64_t const loss_range = 1 + random.below(30);
  for (auto& item : items) {
    auto const count = 1 + random.below(4);
    for (std::int64_t j = 0; j < count; ++j) {
      double const loss = static_cast<double>(random.below(loss_range)) * 0x1p-10;
      item.candidates.push_back({random.below(byte_range), loss});
    }
    if (random.below(4) == 0) item.candidates.push_back(item.candidates.front());
  }
  return items;
}

/// More items, whose bytes are mostly multiples of one step and whose losses are few: many choices are equally good.
inline std::vector<allocation_item> tied(source& random) {
  std::vector<allocation_item> items(static_cast<std::size_t>(8 + random.below(7)));
  std::int64_t const step = 1 + random.below(4);
  std::int64_t const loss_range = 1 + random.below(12);
  for (auto& item : items) {
    auto const count = 1 + random.below(5);
    for (std::int64_t j = 0; j < count; ++j) {
      std::int64_t const odd = random.below(40) == 0 ? 1 : 0;
      double const loss = static_cast<double>(random.below(loss_range) * (random.below(3) == 0 ? 1 : 3)) * 0x1p-10;
      item.candidates.push_back({step * random.below(10) + odd, loss});
    }
  }
  return items;
}

/// Eight formats of layers with random sensitivities. `family` 0 and 1: random sizes; 2: equal sizes; 3: noisy losses.
inline std::vector<allocation_item> layers(source& random, std::size_t count, int family, std::int64_t largest = 1000) {
  constexpr std::int64_t quarter_bytes[] = {9, 13, 17, 18, 21, 26, 33, 64};
  double const noise = family == 3 ? 0.5 : 0.15;
  std::vector<allocation_item> items(count);
  for (auto& item : items) {
    std::int64_t const size = family == 2 ? largest : 1 + random.below(largest);
    double const sensitivity = std::exp(1.5 * random.normal()) * static_cast<double>(size);
    for (std::int64_t const bytes : quarter_bytes) {
      double const relative = bytes == 64 ? 1e-6 : std::exp2(-0.5 * static_cast<double>(bytes));
      item.candidates.push_back({size * bytes, sensitivity * relative * std::exp(noise * random.normal())});
    }
  }
  return items;
}

/// The sum of the smallest (or largest) bytes of each item.
inline std::int64_t least_bytes(std::span<allocation_item const> items) {
  std::int64_t sum = 0;
  for (auto const& item : items) {
    sum += std::ranges::min_element(item.candidates, {}, &candidate::bytes)->bytes;
  }
  return sum;
}
inline std::int64_t most_bytes(std::span<allocation_item const> items) {
  std::int64_t sum = 0;
  for (auto const& item : items) {
    sum += std::ranges::max_element(item.candidates, {}, &candidate::bytes)->bytes;
  }
  return sum;
}

/// Calls `visit(bytes, loss)` for every choice.
template <class Visit>
void each_choice(std::span<allocation_item const> items, Visit const& visit, std::int64_t bytes = 0, double loss = 0) {
  if (items.empty()) {
    visit(bytes, loss);
    return;
  }
  for (auto const& c : items.front().candidates) each_choice(items.subspan(1), visit, bytes + c.bytes, loss + c.loss);
}

/// Least loss, then fewest bytes, within the budget, by looking at every choice.
inline candidate brute_force(std::span<allocation_item const> items, std::int64_t budget) {
  candidate best{std::numeric_limits<std::int64_t>::max(), std::numeric_limits<double>::infinity()};
  each_choice(items, [&](std::int64_t bytes, double loss) {
    if (bytes <= budget && std::pair(loss, bytes) < std::pair(best.loss, best.bytes)) best = {bytes, loss};
  });
  return best;
}

/// Least loss for every budget from 0 to `budget`, one table cell per byte.
inline std::vector<double> grid(std::span<allocation_item const> items, std::int64_t budget) {
  double const never = std::numeric_limits<double>::infinity();
  std::vector<double> table(static_cast<std::size_t>(budget) + 1, 0.0);
  for (auto const& item : items) {
    std::vector<double> next(table.size(), never);
    for (auto const& c : item.candidates) {
      for (auto b = static_cast<std::size_t>(c.bytes); b < table.size(); ++b) {
        next[b] = std::min(next[b], table[b - static_cast<std::size_t>(c.bytes)] + c.loss);
      }
    }
    table.swap(next);
  }
  return table;
}

}  // namespace instances
