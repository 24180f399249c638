// Choose one number format per layer, exactly, under a byte budget; then under a second limit, with a proven gap.
// prints: 0 0 1 -> 25000 bytes, 6 of 6 ms, loss 0.45 .no choice is below 0.45.
#include <cstdio>
#include <prismaquant/allocator/constrained.hpp>
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

  // What each of these choices takes of something else that adds up: here milliseconds per token.
  std::vector<prismaquant::linear_constraint> const limits = {{{1, 2, 4, 1, 2, 4, 2, 4, 8}, 6}};
  auto const quick = prismaquant::allocate(layers, 30000, limits);
  for (std::size_t const choice : quick.choice) std::printf("%zu ", choice);
  std::printf("-> %lld bytes, %lld of 6 ms, loss %.2f (no choice is below %.2f)\n", static_cast<long long>(quick.bytes),
              static_cast<long long>(quick.uses[0]), quick.loss, quick.lower_bound);
}
