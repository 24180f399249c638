#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "allocator/instances.hpp"
#include "prismaquant/allocator/knapsack.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using instances::source;

namespace {

using items_t = std::vector<allocation_item>;

/// What holds for every answer: the sums are those of the choice, the budget is kept, the bound is none too high.
void check_sums(items_t const& items, std::int64_t budget, allocation const& found) {
  REQUIRE(found.choice.size() == items.size());
  std::int64_t bytes = 0;
  double loss = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    REQUIRE(found.choice[i] < items[i].candidates.size());
    bytes += items[i].candidates[found.choice[i]].bytes;
    loss += items[i].candidates[found.choice[i]].loss;
  }
  REQUIRE(found.bytes == bytes);
  REQUIRE(found.bytes <= budget);
  REQUIRE(found.loss == Approx(loss).epsilon(1e-11).margin(found.tolerance));
  REQUIRE(found.lower_bound <= found.loss);
}

template <class Error>
Error caught(items_t const& items, std::int64_t budget) {
  try {
    allocate(items, budget);
  } catch (Error const& e) {
    return e;
  }
  throw std::logic_error("allocate threw nothing");
}

}  // namespace

TEST_CASE("allocate equals brute force in loss and bytes", "[allocator]") {
  source random(1);
  for (int round = 0; round < 3000; ++round) {
    CAPTURE(round);
    auto const items = instances::small(random);
    auto const least = instances::least_bytes(items);
    auto const budget = least + random.below(instances::most_bytes(items) - least + 3);
    auto const found = allocate(items, budget);
    auto const truth = instances::brute_force(items, budget);
    check_sums(items, budget, found);
    REQUIRE(found.loss == truth.loss);
    REQUIRE(found.bytes == truth.bytes);
    REQUIRE(found.lower_bound == truth.loss);
  }
}

TEST_CASE("allocate equals a dynamic program with a cell per byte", "[allocator]") {
  source random(2);
  for (int round = 0; round < 20; ++round) {
    CAPTURE(round);
    auto const items = instances::layers(random, static_cast<std::size_t>(40 + random.below(21)), round % 4, 6);
    auto const most = instances::most_bytes(items);
    auto const table = instances::grid(items, most);
    for (auto const least = instances::least_bytes(items); auto const part : {0.0, 0.02, 0.2, 0.5, 0.9, 1.0}) {
      auto const budget = least + static_cast<std::int64_t>(part * static_cast<double>(most - least));
      auto const found = allocate(items, budget);
      check_sums(items, budget, found);
      REQUIRE(found.loss == Approx(table[static_cast<std::size_t>(budget)]).epsilon(1e-12).margin(found.tolerance));
      REQUIRE(found.loss - found.lower_bound <= found.tolerance);
    }
  }
}

TEST_CASE("of choices with equal loss the fewest bytes win", "[allocator]") {
  source random(20);
  for (int round = 0; round < 10000; ++round) {
    CAPTURE(round);
    auto const items = instances::tied(random);
    auto const least = instances::least_bytes(items);
    auto const budget = least + random.below(instances::most_bytes(items) - least + 1);
    auto const table = instances::grid(items, budget);
    auto const fewest = std::ranges::find(table, table.back()) - table.begin();
    auto const found = allocate(items, budget);
    REQUIRE(found.loss == table.back());
    REQUIRE(found.bytes == fewest);
    REQUIRE(found.loss - found.lower_bound <= found.tolerance);
  }
}

TEST_CASE("more budget never means more loss", "[allocator]") {
  source random(3);
  auto const items = instances::layers(random, 30, 0, 50);
  double before = std::numeric_limits<double>::infinity();
  for (auto budget = instances::least_bytes(items); budget <= instances::most_bytes(items); budget += 37) {
    auto const found = allocate(items, budget);
    check_sums(items, budget, found);
    REQUIRE(found.loss <= before + found.tolerance);
    before = found.loss;
  }
}

TEST_CASE("the answer does not depend on the order of items and candidates", "[allocator]") {
  source random(4);
  for (int family = 0; family < 4; ++family) {
    auto items = instances::layers(random, 300, family);
    auto const budget = instances::least_bytes(items) * 2;
    auto const found = allocate(items, budget);
    auto const again = allocate(items, budget);
    REQUIRE(again.choice == found.choice);
    REQUIRE(found.lower_bound == found.loss);

    for (int round = 0; round < 5; ++round) {
      random.shuffle(items);
      for (auto& item : items) random.shuffle(item.candidates);
      auto const shuffled = allocate(items, budget);
      check_sums(items, budget, shuffled);
      REQUIRE(shuffled.loss == found.loss);
      REQUIRE(shuffled.bytes == found.bytes);
      REQUIRE(shuffled.tolerance == found.tolerance);
    }
  }
}

TEST_CASE("budgets at the ends", "[allocator]") {
  source random(5);
  auto const items = instances::layers(random, 50, 3);
  auto const least = instances::least_bytes(items);
  check_sums(items, least, allocate(items, least));
  REQUIRE(allocate(items, least).bytes == least);

  double best = 0;
  for (auto const& item : items) best += std::ranges::min_element(item.candidates, {}, &candidate::loss)->loss;
  for (auto const budget : {instances::most_bytes(items), std::numeric_limits<std::int64_t>::max()}) {
    auto const found = allocate(items, budget);
    check_sums(items, budget, found);
    REQUIRE(found.loss == Approx(best).epsilon(1e-12).margin(found.tolerance));
    REQUIRE(found.lower_bound == found.loss);
  }
}

TEST_CASE("problems that are hardly any", "[allocator]") {
  auto const empty = allocate(items_t{}, 0);
  REQUIRE(empty.choice.empty());
  REQUIRE(empty.bytes == 0);
  REQUIRE(empty.loss == 0.0);
  REQUIRE(empty.lower_bound == 0.0);

  SECTION("one item") {
    items_t const items = {{{{10, 1.0}, {20, 0.5}, {30, 0.25}}}};
    REQUIRE(allocate(items, 10).choice == std::vector<std::size_t>{0});
    REQUIRE(allocate(items, 29).choice == std::vector<std::size_t>{1});
    REQUIRE(allocate(items, 29).lower_bound == 0.5);
    REQUIRE(allocate(items, 99).choice == std::vector<std::size_t>{2});
  }
  SECTION("equal bytes: the least loss, and of equals the first") {
    items_t const items(7, {{{8, 3.0}, {8, 1.0}, {8, 2.0}, {8, 1.0}}});
    auto const found = allocate(items, 60);
    REQUIRE(found.choice == std::vector<std::size_t>(7, 1));
    REQUIRE(found.loss == 7.0);
  }
  SECTION("no losses at all: the fewest bytes") {
    items_t const items(7, {{{8, 0.0}, {4, 0.0}, {4, 0.0}}});
    auto const found = allocate(items, 50);
    REQUIRE(found.choice == std::vector<std::size_t>(7, 1));
    REQUIRE(found.loss == 0.0);
    REQUIRE(found.lower_bound == 0.0);
  }
  SECTION("no bytes at all: the least loss") {
    items_t const items(7, {{{0, 2.0}, {0, 1.0}}});
    REQUIRE(allocate(items, 0).loss == 7.0);
  }
}

TEST_CASE("a loss that forbids does not blur the others", "[allocator]") {
  source random(6);
  auto items = instances::layers(random, 40, 0, 6);
  auto const budget = instances::least_bytes(items) * 2;
  auto const plain = allocate(items, budget);
  for (auto& item : items) item.candidates.push_back({0, 1e30});
  auto const found = allocate(items, budget);
  REQUIRE(found.choice == plain.choice);
  REQUIRE(found.loss == Approx(plain.loss).epsilon(1e-12));
  REQUIRE(found.lower_bound == found.loss);
}

TEST_CASE("losses of any magnitude", "[allocator]") {
  source random(7);
  auto const items = instances::layers(random, 40, 0, 6);
  auto const budget = instances::least_bytes(items) * 2;
  auto const plain = allocate(items, budget);
  for (double const factor : {0x1p-900, 0x1p-60, 0x1p60, 0x1p1000}) {
    auto scaled = items;
    for (auto& item : scaled) {
      for (auto& c : item.candidates) c.loss *= factor;
    }
    auto const found = allocate(scaled, budget);
    REQUIRE(found.choice == plain.choice);
    REQUIRE(found.loss == plain.loss * factor);
    REQUIRE(found.lower_bound == found.loss);
  }
}

TEST_CASE("bytes of any magnitude", "[allocator]") {
  source random(8);
  auto const items = instances::small(random);
  auto const budget = (instances::least_bytes(items) + instances::most_bytes(items)) / 2;
  auto const plain = allocate(items, budget);
  for (std::int64_t const factor : {std::int64_t{3}, std::int64_t{1} << 20, std::int64_t{1} << 50}) {
    auto scaled = items;
    for (auto& item : scaled) {
      for (auto& c : item.candidates) c.bytes *= factor;
    }
    auto const found = allocate(scaled, budget * factor + factor - 1);
    REQUIRE(found.loss == plain.loss);
    REQUIRE(found.bytes == plain.bytes * factor);
    REQUIRE(found.lower_bound == found.loss);
  }
}

TEST_CASE("equal and proportional items are solved up to the tolerance", "[allocator]") {
  // At one price all items break at once, and the budget is out of step with every sum of bytes.
  constexpr std::int64_t quarter_bytes[] = {9, 13, 17, 18, 21, 26, 33, 64};
  source random(9);
  for (std::int64_t const shapes : {1, 4}) {
    items_t items(500);
    for (auto& item : items) {
      std::int64_t const size = 4096 * (1 + random.below(shapes));
      for (std::int64_t const bytes : quarter_bytes) {
        double const loss = 0.37 * static_cast<double>(size) * std::exp2(-0.5 * static_cast<double>(bytes));
        item.candidates.push_back({size * bytes, loss});
      }
    }
    auto const budget = instances::least_bytes(items) * 2 + 12345;
    auto const found = allocate(items, budget);
    check_sums(items, budget, found);
    REQUIRE(found.loss - found.lower_bound <= found.tolerance);
    REQUIRE(found.tolerance < 1e-9 * found.loss);
  }
}

TEST_CASE("equal items are proven at every budget", "[allocator]") {
  items_t const items(12, {{{10, 1.0}, {20, 0.1}, {40, 0.01}}});
  auto const table = instances::grid(items, instances::most_bytes(items));
  for (auto budget = instances::least_bytes(items); budget <= instances::most_bytes(items); ++budget) {
    CAPTURE(budget);
    auto const found = allocate(items, budget);
    REQUIRE(found.loss == Approx(table[static_cast<std::size_t>(budget)]).epsilon(1e-13));
    REQUIRE(found.lower_bound == found.loss);
  }
}

TEST_CASE("a search without memory still gives a choice and a true bound", "[allocator]") {
  source random(10);
  bool any_open = false;
  for (int round = 0; round < 300; ++round) {
    auto const items = instances::small(random);
    auto const least = instances::least_bytes(items);
    auto const budget = least + random.below(instances::most_bytes(items) - least + 1);
    auto const truth = instances::brute_force(items, budget);
    for (std::size_t const limit : {0u, 5u, 20u, 100u}) {
      CAPTURE(round, limit);
      auto const found = detail::allocate(items, budget, limit);
      check_sums(items, budget, found);
      REQUIRE(found.loss >= truth.loss);
      REQUIRE(found.lower_bound <= truth.loss);
      any_open = any_open || found.lower_bound < found.loss;
    }
  }
  REQUIRE(any_open);
}

TEST_CASE("twenty thousand items are solved to proven optimality", "[allocator]") {
  for (int family = 0; family < 4; ++family) {
    source random(static_cast<std::uint64_t>(11 + family));
    auto const items = instances::layers(random, 20000, family);
    auto const budget = instances::least_bytes(items) / 9 * 19;
    auto const found = allocate(items, budget);
    check_sums(items, budget, found);
    REQUIRE(found.loss - found.lower_bound <= found.tolerance);
    REQUIRE(found.tolerance < 1e-9 * found.loss);
    REQUIRE(found.states < 100'000);
  }
}

TEST_CASE("a budget that is too small says what would do", "[allocator]") {
  items_t const items = {{{{10, 1.0}, {7, 2.0}}}, {{{5, 1.0}}}};
  auto const e = caught<budget_error>(items, 11);
  REQUIRE(e.minimum == 12);
  REQUIRE(std::string(e.what()) == "the budget is 11 bytes, but the smallest choice needs 12");
  REQUIRE_NOTHROW(allocate(items, e.minimum));
  REQUIRE(caught<budget_error>({}, -1).minimum == 0);
}

TEST_CASE("numbers that mean nothing are named", "[allocator]") {
  auto const text = [](candidate bad) {
    items_t const items = {{{{1, 1.0}}}, {{{1, 1.0}, bad}}};
    return std::string(caught<numeric_error>(items, 100).what());
  };
  REQUIRE(text({1, -0.5}) == "item 1, candidate 1: -0.5 as loss; a loss must be finite and not negative");
  REQUIRE(text({1, -1e-30}) == "item 1, candidate 1: -1e-30 as loss; a loss must be finite and not negative");
  REQUIRE(text({1, std::numeric_limits<double>::infinity()}).starts_with("item 1, candidate 1: inf as loss"));
  REQUIRE(text({1, std::numeric_limits<double>::quiet_NaN()}).starts_with("item 1, candidate 1: nan as loss"));
  REQUIRE(text({-3, 1.0}) == "item 1, candidate 1: -3 bytes; bytes must not be negative");

  items_t const items = {{{{1, 1.0}}}, {}};
  REQUIRE(std::string(caught<error>(items, 100).what()) == "item 1 has no candidates");
}

TEST_CASE("sums of bytes do not overflow", "[allocator]") {
  constexpr auto most = std::numeric_limits<std::int64_t>::max();
  REQUIRE_THROWS_AS(allocate(items_t(3, {{{most / 2, 1.0}}}), most), numeric_error);
  REQUIRE_THROWS_AS(allocate(items_t(3, {{{0, 2.0}, {most, 1.0}}}), most), numeric_error);
  // What does not fit anyhow does not count.
  REQUIRE(allocate(items_t(3, {{{1, 2.0}, {most, 1.0}}}), 1000).bytes == 3);
}
