// Quantize a matrix for the inputs that it will see: the errors of its outputs count, not those of its weights.
// prints: scale_sweep, gptq, coordinate_descent; less than 0.7 of the output error of scale_sweep: yes
#include <cstdio>
#include <prismaquant/formats/nvfp4.hpp>
#include <prismaquant/linalg/eigen_backend.hpp>
#include <prismaquant/solver/chain.hpp>
#include <random>
#include <vector>

namespace pq = prismaquant;

int main() {
  std::size_t const rows = 64, columns = 128, tokens = 2000;
  std::minstd_rand random(1);
  auto const uniform = [&] { return static_cast<float>(random()) / static_cast<float>(random.max()) - 0.5f; };
  std::vector<float> weights(rows * columns), inputs(tokens * columns), gram(columns * columns);
  for (float& w : weights) w = uniform();
  for (std::size_t t = 0; t < tokens; ++t) {  // neighbouring inputs are alike, as those of real layers are
    for (std::size_t c = 0; c < columns; ++c) {
      inputs[t * columns + c] = uniform() + (c % 16 == 0 ? 0.0f : 0.9f * inputs[t * columns + c - 1]);
    }
  }

  // Any BLAS and LAPACK will do: `pq::lapack_backend` takes pointers to the functions that an engine links anyway.
  pq::eigen_backend const linalg;
  auto const h = pq::view(std::span(gram), columns, columns);
  linalg.add_gram(pq::view(std::span<float const>(inputs), tokens, columns), h);  // batch after batch

  pq::solve_context context;
  context.gram = h;
  context.tokens = tokens;
  auto const w = pq::view(std::span<float const>(weights), rows, columns);
  std::vector<pq::stage> const chain{pq::scale_sweep{}, pq::gptq{}, pq::coordinate_descent{.sweeps = 2}};
  auto const solved = pq::solve<pq::nvfp4>(w, context, std::span(chain), linalg, pq::thread_executor(2));

  auto const& stages = solved.report.stages;  // a preset, `"best"` in place of the list, names the usual chains
  for (auto const& stage : stages) std::printf("%s%s", &stage == &stages[0] ? "" : ", ", stage.name.data());
  bool const better = *stages.back().after < 0.7 * *stages.front().after;
  std::printf("; less than 0.7 of the output error of scale_sweep: %s\n", better ? "yes" : "no");
}
