// Time to a proven optimum of the multiple-choice knapsack: median of seven runs per family of random instances.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>

#include "allocator/instances.hpp"
#include "prismaquant/allocator/knapsack.hpp"

namespace {

double milliseconds(std::vector<prismaquant::allocation_item> const& items, std::int64_t budget) {
  std::array<double, 7> times{};
  for (auto& time : times) {
    auto const start = std::chrono::steady_clock::now();
    auto const found = prismaquant::allocate(items, budget);
    time = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    if (found.loss != found.lower_bound) std::puts("not proven");
  }
  std::nth_element(times.begin(), times.begin() + 3, times.end());
  return times[3];
}

}  // namespace

int main() {
  for (std::size_t const count : {std::size_t{20'000}, std::size_t{200'000}}) {
    for (int family = 0; family < 4; ++family) {
      instances::source random(static_cast<std::uint64_t>(100 + family));
      auto const items = instances::layers(random, count, family);
      std::printf("%7zu units x 8, family %d: %8.2f ms\n", count, family,
                  milliseconds(items, 2 * instances::least_bytes(items)));
    }
  }
}
