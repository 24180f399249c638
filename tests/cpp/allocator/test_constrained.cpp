#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "allocator/instances.hpp"
#include "prismaquant/allocator/constrained.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using instances::source;

namespace {

/// Uses that have nothing to do with the bytes, as those of activations do not.
linear_constraint random_constraint(source& random, std::vector<allocation_item> const& items, std::int64_t range) {
  linear_constraint result;
  std::int64_t least = 0;
  std::int64_t most = 0;
  for (auto const& item : items) {
    auto const begin = result.uses.size();
    for (std::size_t j = 0; j < item.candidates.size(); ++j) result.uses.push_back(random.below(range));
    auto const [low, high] =
        std::minmax_element(result.uses.begin() + static_cast<std::ptrdiff_t>(begin), result.uses.end());
    least += *low;
    most += *high;
  }
  result.limit = least + random.below(most - least + 1);
  return result;
}

/// The least loss over every choice within budget and constraints; nothing if none is.
std::optional<double> brute_force(std::span<allocation_item const> items, std::int64_t budget,
                                  std::span<linear_constraint const> constraints) {
  double best = std::numeric_limits<double>::infinity();
  std::vector<std::int64_t> used(constraints.size(), 0);
  auto const visit = [&](auto const& self, std::size_t item, std::size_t place, std::int64_t bytes,
                         double loss) -> void {
    if (item == items.size()) {
      bool fits = bytes <= budget;
      for (std::size_t k = 0; k < used.size(); ++k) fits = fits && used[k] <= constraints[k].limit;
      if (fits) best = std::min(best, loss);
      return;
    }
    auto const& candidates = items[item].candidates;
    for (std::size_t j = 0; j < candidates.size(); ++j) {
      for (std::size_t k = 0; k < used.size(); ++k) used[k] += constraints[k].uses[place + j];
      self(self, item + 1, place + candidates.size(), bytes + candidates[j].bytes, loss + candidates[j].loss);
      for (std::size_t k = 0; k < used.size(); ++k) used[k] -= constraints[k].uses[place + j];
    }
  };
  visit(visit, 0, 0, 0, 0.0);
  return best == std::numeric_limits<double>::infinity() ? std::nullopt : std::optional(best);
}

void check(std::vector<allocation_item> const& items, std::int64_t budget,
           std::vector<linear_constraint> const& constraints, constrained_allocation const& found) {
  std::int64_t bytes = 0;
  double loss = 0;
  std::vector<std::int64_t> used(constraints.size(), 0);
  std::size_t place = 0;
  REQUIRE(found.choice.size() == items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    auto const& chosen = items[i].candidates.at(found.choice[i]);
    bytes += chosen.bytes;
    loss += chosen.loss;
    for (std::size_t k = 0; k < used.size(); ++k) used[k] += constraints[k].uses[place + found.choice[i]];
    place += items[i].candidates.size();
  }
  REQUIRE(found.bytes == bytes);
  REQUIRE(found.bytes <= budget);
  REQUIRE(found.uses == used);
  for (std::size_t k = 0; k < used.size(); ++k) REQUIRE(used[k] <= constraints[k].limit);
  REQUIRE(found.loss == Approx(loss).epsilon(1e-12));
  REQUIRE(found.lower_bound <= found.loss);
}

}  // namespace

TEST_CASE("a constrained allocation equals brute force", "[allocator]") {
  source random(11);
  int binding = 0;
  for (int round = 0; round < 1000; ++round) {
    CAPTURE(round);
    auto const items = instances::small(random);
    std::vector<linear_constraint> constraints;
    for (std::int64_t k = 0; k <= random.below(3); ++k) constraints.push_back(random_constraint(random, items, 20));
    std::int64_t const least = instances::least_bytes(items);
    std::int64_t const budget = least + random.below(instances::most_bytes(items) - least + 1);
    auto const truth = brute_force(items, budget, constraints);
    if (!truth) {
      REQUIRE_THROWS_AS(allocate(items, budget, constraints), budget_error);
      continue;
    }
    auto const found = allocate(items, budget, constraints);
    check(items, budget, constraints, found);
    REQUIRE(found.loss == Approx(*truth).margin(1e-12));
    REQUIRE(found.lower_bound == Approx(found.loss).margin(1e-12));  // so small a problem is searched to its end
    binding += found.loss > allocate(items, budget).loss;
  }
  REQUIRE(binding > 300);
}

TEST_CASE("a constraint that costs nothing changes nothing", "[allocator]") {
  source random(12);
  auto const items = instances::layers(random, 200, 0);
  std::int64_t const budget = 2 * instances::least_bytes(items);
  auto const alone = allocate(items, budget);
  auto constraint = random_constraint(random, items, 1000);
  constraint.limit = 1000 * 200;
  auto const found = allocate(items, budget, std::vector{constraint});
  REQUIRE(found.choice == alone.choice);
  REQUIRE(found.loss == alone.loss);
  REQUIRE(found.lower_bound == alone.lower_bound);
}

TEST_CASE("the gap of many layers under two limits is small and proven", "[allocator]") {
  // Half of the candidates of each item come twice with the same bytes: once cheap in the second limit, once with less
  // loss.
  for (int family = 0; family < 4; ++family) {
    CAPTURE(family);
    source random(static_cast<std::uint64_t>(20 + family));
    auto const plain = instances::layers(random, 300, family);
    std::vector<allocation_item> items;
    linear_constraint share;
    std::int64_t total = 0;
    for (auto const& item : plain) {
      auto& twice = items.emplace_back();
      std::int64_t const size = item.candidates.front().bytes / 9;
      for (auto const& each : item.candidates) {
        twice.candidates.push_back({each.bytes, each.loss * (1.5 + random.uniform())});
        share.uses.push_back(0);
        twice.candidates.push_back(each);
        share.uses.push_back(size);
      }
      total += size;
    }
    share.limit = total / 5;
    std::int64_t const budget = 2 * instances::least_bytes(items);
    std::vector const constraints{share};
    auto const found = allocate(items, budget, constraints);
    check(items, budget, constraints, found);
    REQUIRE(found.loss - found.lower_bound <= 2e-3 * found.loss);
    REQUIRE(found.lower_bound > allocate(items, budget).lower_bound);
  }
}

TEST_CASE("no constraint is the exact knapsack, and nothing has nothing", "[allocator]") {
  source random(13);
  auto const items = instances::small(random);
  std::int64_t const budget = instances::most_bytes(items);
  REQUIRE(allocate(items, budget, std::span<linear_constraint const>{}).choice == allocate(items, budget).choice);
  std::vector<allocation_item> const none;
  auto const found = allocate(none, 0, std::vector<linear_constraint>{{{}, 0}});
  REQUIRE(found.choice.empty());
  REQUIRE(found.loss == 0);
}

TEST_CASE("bad constraints are refused", "[allocator]") {
  std::vector<allocation_item> const items = {{{{4, 1.0}, {8, 0.0}}}};
  auto const with = [&](linear_constraint const& constraint) { return allocate(items, 8, std::vector{constraint}); };
  REQUIRE_THROWS_WITH(with({{1}, 5}), "constraint 0 has 1 uses for 2 candidates");
  REQUIRE_THROWS_WITH(with({{1, -1}, 5}), "constraint 0: item 0 has a use that is negative or above 2^61");
  try {
    with({{3, 4}, 2});
    FAIL("no error");
  } catch (budget_error const& refused) {
    REQUIRE(refused.minimum == 3);
    REQUIRE(std::string(refused.what()).find("the limit of constraint 0 is 2, but the smallest choice needs 3") == 0);
  }
}
