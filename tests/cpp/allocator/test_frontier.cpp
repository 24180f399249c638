#include <cstdint>
#include <map>
#include <vector>

#include "allocator/instances.hpp"
#include "prismaquant/allocator/frontier.hpp"
#include "prismaquant/allocator/knapsack.hpp"
#include "prismaquant/allocator/sweep.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using instances::source;

namespace {

/// The vertices of the lower convex hull over all choices, by looking at every choice. Exact for small numbers.
std::vector<frontier_point> brute_force_hull(std::vector<allocation_item> const& items) {
  std::map<std::int64_t, double> least;
  instances::each_choice(items, [&](std::int64_t bytes, double loss) {
    auto const [at, is_new] = least.try_emplace(bytes, loss);
    if (!is_new) at->second = std::min(at->second, loss);
  });
  std::vector<frontier_point> hull;
  for (auto const& point : least) {
    auto const bytes = point.first;  // not a structured binding: clang 14 cannot capture those
    auto const loss = point.second;
    if (!hull.empty() && loss >= hull.back().loss) continue;
    auto const turns_up = [&] {
      auto const& a = hull[hull.size() - 2];
      auto const& b = hull.back();
      return (a.loss - b.loss) * static_cast<double>(bytes - b.bytes) <=
             (b.loss - loss) * static_cast<double>(b.bytes - a.bytes);
    };
    while (hull.size() >= 2 && turns_up()) hull.pop_back();
    hull.push_back({bytes, loss});
  }
  return hull;
}

}  // namespace

TEST_CASE("frontier equals the hull of all choices", "[allocator]") {
  source random(1);
  for (int round = 0; round < 1000; ++round) {
    CAPTURE(round);
    auto const items = instances::small(random);
    auto const truth = brute_force_hull(items);
    auto const found = frontier(items);
    REQUIRE(found.size() == truth.size());
    for (std::size_t k = 0; k < found.size(); ++k) {
      REQUIRE(found[k].bytes == truth[k].bytes);
      REQUIRE(found[k].loss == truth[k].loss);
    }
  }
}

TEST_CASE("frontier and allocate agree at every vertex", "[allocator]") {
  source random(2);
  auto const items = instances::layers(random, 40, 3);
  auto const points = frontier(items);
  REQUIRE(points.size() > 100);
  REQUIRE(points.front().bytes == instances::least_bytes(items));
  for (std::size_t k = 0; k < points.size(); ++k) {
    if (k > 0) REQUIRE(points[k].bytes > points[k - 1].bytes);
    if (k > 0) REQUIRE(points[k].loss <= points[k - 1].loss);
    auto const found = allocate(items, points[k].bytes);
    REQUIRE(found.loss == Approx(points[k].loss).epsilon(1e-12).margin(found.tolerance));
    REQUIRE(found.bytes == points[k].bytes);
  }
}

TEST_CASE("frontier keeps small losses beside huge ones", "[allocator]") {
  std::vector<allocation_item> const items(3, {{{1, 1e30}, {2, 1.0}, {3, 0.5}}});
  auto const points = frontier(items);
  REQUIRE(points.size() == 3);
  REQUIRE(points[1].bytes == 6);
  REQUIRE(points[1].loss == 3.0);
  REQUIRE(points[2].loss == 1.5);
}

TEST_CASE("frontier of hardly anything", "[allocator]") {
  REQUIRE(frontier({}).size() == 1);
  REQUIRE(frontier({}).front().bytes == 0);
  REQUIRE(frontier({}).front().loss == 0.0);

  std::vector<allocation_item> const equal(3, {{{4, 1.0}, {4, 0.5}}});
  REQUIRE(frontier(equal).size() == 1);
  REQUIRE(frontier(equal).front().loss == 1.5);

  std::vector<allocation_item> const bad(1);
  REQUIRE_THROWS_AS(frontier(bad), error);
}

TEST_CASE("a sweep is the certified optimum of every budget, and never gets worse", "[allocator]") {
  source random(5);
  for (int family = 0; family < 4; ++family) {
    auto const items = instances::layers(random, 60, family);
    std::int64_t const least = instances::least_bytes(items);
    std::int64_t const most = instances::most_bytes(items);
    std::vector<std::int64_t> budgets;
    for (std::int64_t k = 0; k < 200; ++k) budgets.push_back(least + (most - least) * k / 199);
    auto const found = sweep(items, budgets);
    REQUIRE(found.size() == budgets.size());
    for (std::size_t k = 0; k < found.size(); ++k) {
      CAPTURE(family, k);
      REQUIRE(found[k].bytes <= budgets[k]);
      REQUIRE(found[k].loss - found[k].lower_bound <= found[k].tolerance);
      REQUIRE(found[k].loss <= allocate(items, budgets[k]).loss);
      if (k > 0) REQUIRE(found[k].loss <= found[k - 1].loss);
    }
  }
  std::vector<std::int64_t> const decreasing = {5, 4};
  REQUIRE_THROWS_AS(sweep({}, decreasing), error);
}
