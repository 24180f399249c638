// Choose one number format per layer, exactly, under a byte budget.
// prints: 1 0 1 -> 28500 bytes, loss 0.17
#include <cstdio>
#include <prismaquant/allocator/knapsack.hpp>
#include <vector>

int main() {
  // Per layer: {bytes, expected loss} in 4, 8 and 16 bits.
  std::vector<prismaquant::allocation_item> const layers = {
      {{{4500, 0.30}, {8000, 0.02}, {16000, 0.0}}},
      {{{4500, 0.05}, {8000, 0.01}, {16000, 0.0}}},
      {{{9000, 0.90}, {16000, 0.10}, {32000, 0.0}}},
  };
  auto const best = prismaquant::allocate(layers, 30000);
  for (std::size_t const choice : best.choice) std::printf("%zu ", choice);
  std::printf("-> %lld bytes, loss %.2f (no choice within the budget is below %.2f)\n",
              static_cast<long long>(best.bytes), best.loss, best.lower_bound);
}
