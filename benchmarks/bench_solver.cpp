// Speed of the solvers' inner loops and of linalg/ as ratios to the same BLAS on the same operations.
//
//   bench_solver [--rounds 5] [--json FILE] [--only TEXT]
//
// OpenBLAS does not know every processor and then takes kernels of an older one at half the speed. The program
// therefore starts itself again with the core type of the widest vectors that the processor has, and prints which one
// is in use.
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <numeric>
#include <random>

#include "interleaved.hpp"
#include "prismaquant/core/fp_environment.hpp"
#include "prismaquant/formats/nvfp4.hpp"
#include "prismaquant/linalg/eigen_backend.hpp"
#include "prismaquant/solver/chain.hpp"

using namespace prismaquant;

extern "C" {
lapack_backend::sgemm_function sgemm_;
lapack_backend::ssyrk_function ssyrk_;
lapack_backend::spotrf_function spotrf_, spotri_;
lapack_backend::strtri_function strtri_;
void sger_(int const* m, int const* n, float const* alpha, float const* x, int const* step_x, float const* y,
           int const* step_y, float* a, int const* leading);
char* openblas_get_corename();
void openblas_set_num_threads(int);
}

namespace {

lapack_backend const blas{&sgemm_, &ssyrk_, &spotrf_, &strtri_};

// Processor time of `body`: what others do on the machine meanwhile costs nothing here but cache and memory.
template <class Body>
double seconds(Body const& body) {
  return interleaved::seconds(1, [&](int) { body(); });
}

// Contiguous ranges in `threads` threads; adds up the time of the slowest of each call.
struct timed_executor {
  int threads;
  double total = 0;

  template <class Body>
  void for_ranges(std::size_t count, Body&& body) {
    auto const parts = static_cast<std::size_t>(threads);
    total += interleaved::seconds(threads, [&](int part) {
      auto const i = static_cast<std::size_t>(part);
      if (count * i / parts < count * (i + 1) / parts) body(count * i / parts, count * (i + 1) / parts);
    });
  }
};

struct matrix {
  matrix(std::size_t r, std::size_t c, float deviation, unsigned seed) : rows(r), columns(c), elements(r * c) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0.0f, deviation);
    for (std::size_t i = 0; i < elements.size(); ++i) {
      elements[i] = i < 1 << 20 ? normal(generator) : elements[(i * 7919) % (1 << 20)];
    }
  }
  matrix_view<float> view() { return {elements.data(), rows, columns, static_cast<std::ptrdiff_t>(columns), 1}; }
  std::size_t rows, columns;
  std::vector<float> elements;
};

enum class sense { none, at_most, at_least };

struct contender {
  std::string name;
  std::function<double()> body;  // returns the seconds it took
  sense goal_is = sense::none;
  double goal = 0;
  bool speedup = false;  // the ratio is the first contender's time over this one's, not the other way round
  std::vector<double> times = {}, ratios = {};
};

struct line {
  std::string what;
  contender c;
};

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

class bench {
 public:
  bench(int rounds, std::string only) : rounds_(rounds), only_(std::move(only)) {}

  bool wanted(std::string const& what) const { return what.find(only_) != std::string::npos; }

  // Every contender once per round; ratios are medians of the rounds' own ratios to the first contender.
  void run(std::string const& what, std::vector<contender> contenders) {
    for (int round = -1; round < rounds_; ++round) {
      for (auto& c : contenders) {
        double const time = c.body();
        if (round < 0) continue;  // warm
        c.times.push_back(time);
        double const first = contenders.front().times.back();
        c.ratios.push_back(c.speedup ? first / time : time / first);
      }
    }
    for (auto& c : contenders) {
      lines_.push_back({what, c});
      print(lines_.back());
    }
  }

  void write_json(std::string const& path) const {
    std::ofstream out(path);
    out << "[";
    for (std::size_t i = 0; i < lines_.size(); ++i) {
      contender const& c = lines_[i].c;
      out << (i == 0 ? "\n" : ",\n") << R"( {"what": ")" << lines_[i].what << R"(", "by": ")" << c.name
          << R"(", "seconds": )" << median(c.times) << R"(, "ratio": )" << median(c.ratios) << R"(, "goal": ")"
          << goal(c) << R"(", "met": )" << (met(c) ? "true" : "false") << "}";
    }
    out << "\n]\n";
  }

 private:
  static std::string goal(contender const& c) {
    if (c.goal_is == sense::none) return "";
    char text[32];
    std::snprintf(text, sizeof text, "%s %.2f", c.goal_is == sense::at_most ? "<=" : ">=", c.goal);
    return text;
  }
  static bool met(contender const& c) {
    return c.goal_is == sense::at_most ? median(c.ratios) <= c.goal : median(c.ratios) >= c.goal;
  }
  static void print(line const& l) {
    contender const& c = l.c;
    std::printf("%-28s %-36s %8.3f s %6.2f  %s %s\n", l.what.c_str(), c.name.c_str(), median(c.times), median(c.ratios),
                goal(c).c_str(),
                c.goal_is == sense::none ? ""
                : met(c)                 ? "met"
                                         : "MISSED");
    std::fflush(stdout);
  }

  int rounds_;
  std::string only_;
  std::vector<line> lines_;
};

// A damped Gram matrix of correlated inputs.
matrix gram(std::size_t columns, std::size_t tokens) {
  matrix x(tokens, columns, 1.0f, 1), h(columns, columns, 0.0f, 2);
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t c = 1; c < columns; ++c) x.view()(t, c) += 0.5f * x.view()(t, c - 1);
  }
  blas.add_gram(x.view(), h.view());
  double mean = 0;
  for (std::size_t c = 0; c < columns; ++c) mean += double{h.view()(c, c)} / static_cast<double>(columns);
  for (std::size_t c = 0; c < columns; ++c) h.view()(c, c) += 0.1f * static_cast<float>(mean);
  return h;
}

// The structure of the loop in Python tools: blocks of 128 columns, a rank-1 update per column within the block, a
// product for the rest. Here its rounding is fused into C++; bench_gptq_python.py measures the loop itself.
void blocks_of_128(matrix const& source, matrix& u, matrix const& scales, matrix& w, matrix& values) {
  constexpr std::size_t width = 128;
  std::size_t const rows = w.rows, columns = w.columns, groups = columns / 16;
  std::copy(source.elements.begin(), source.elements.end(), w.elements.begin());
  std::vector<float> block(rows * width), errors(rows * width), column(rows);
  int const one_step = 1, block_width = width, m = static_cast<int>(rows);
  float const minus = -1.0f;
  for (std::size_t first = 0; first < columns; first += width) {
    for (std::size_t r = 0; r < rows; ++r) std::copy_n(&w.elements[r * columns + first], width, &block[r * width]);
    for (std::size_t i = 0; i < width; ++i) {
      float const inverse = 1.0f / u.view()(first + i, first + i);
      for (std::size_t r = 0; r < rows; ++r) {
        float const x = block[r * width + i], scale = scales.elements[r * groups + (first + i) / 16];
        float const value = e2m1::decode(e2m1::encode(x / scale)) * scale;
        values.elements[r * columns + first + i] = value;
        column[r] = errors[r * width + i] = (x - value) * inverse;
      }
      int const rest = static_cast<int>(width - i);
      sger_(&rest, &m, &minus, &u.view()(first + i, first + i), &one_step, column.data(), &one_step, &block[i],
            &block_width);
    }
    std::size_t const next = first + width;
    if (next == columns) break;
    matrix_view<float const> const e{errors.data(), rows, width, static_cast<std::ptrdiff_t>(width), 1};
    blas.add_product(-1.0f, e, u.view().part(first, next, width, columns - next),
                     w.view().part(0, next, rows, columns - next));
  }
}

void bench_gptq(bench& b, std::size_t rows, std::size_t columns) {
  std::string const what = (rows < 100 ? "quick " : "GPTQ ") + std::to_string(rows) + " x " + std::to_string(columns);
  if (!b.wanted(what)) return;
  matrix u = gram(columns, columns + columns / 4);
  if (!blas.factor_inverse(u.view())) throw std::runtime_error("the Gram matrix has no factor");
  matrix weights(rows, columns, 0.02f, 3), values(rows, columns, 0.0f, 4), work(rows, columns, 0.0f, 5);
  matrix scales(rows, columns / 16, 0.0f, 6), chosen = scales;
  for (std::size_t g = 0; g < scales.elements.size(); ++g) {
    float amax = 0;
    for (std::size_t i = 0; i < 16; ++i) amax = std::max(amax, std::abs(weights.elements[g * 16 + i]));
    scales.elements[g] = amax / 6;
  }
  std::vector<std::size_t> order(columns);
  std::iota(order.begin(), order.end(), std::size_t{0});
  auto const kernels = detail::solver_kernels<nvfp4>();
  auto const ours = [&](bool sweep, int threads) {
    return [&, sweep, threads] {
      timed_executor executor{threads};
      fp_environment_guard const guard;
      detail::triangle_strips const strips(u.view(), executor);
      detail::run_tiles(sweep ? kernels.gptq_sweep : kernels.gptq, strips.view(),
                        {weights.view(), order, values.view(), (sweep ? chosen : scales).view(), 16, 20000.0f, sweep},
                        executor);
      return executor.total;
    };
  };
  auto const product = [&] {  // rows * columns^2 / 2 multiply-adds, as the loop
    return seconds([&] {
      matrix_view<float> const half = work.view().part(0, 0, rows, columns / 2);
      blas.add_product(1.0f, weights.view(), u.view().part(0, 0, columns, columns / 2), half);
    });
  };
  auto const blocks = [&] { return seconds([&] { blocks_of_128(weights, u, scales, work, values); }); };
  b.run(what, {{"sgemm of as many multiply-adds", product},
               {"given scales", ours(false, 1), sense::at_most, 1.15},
               {"scales chosen in the loop", ours(true, 1), sense::at_most, 1.30}});
  b.run(what, {{"given scales", ours(false, 1)}, {"blocks of 128 on the same BLAS", blocks}});
  b.run(what, {{"given scales, 1 core", ours(false, 1)},
               {"given scales, 2 cores", ours(false, 2), sense::at_least, 1.8, true}});
  b.run(what, {{"chosen scales, 1 core", ours(true, 1)},
               {"chosen scales, 2 cores", ours(true, 2), sense::at_least, 1.8, true}});
}

// A backend that remembers the time of its factorisations.
struct timed_factor : lapack_backend {
  explicit timed_factor(lapack_backend const& inner) : lapack_backend(inner) {}
  bool factor_inverse(matrix_view<float> h) const {
    bool done = false;
    *spent += seconds([&] { done = lapack_backend::factor_inverse(h); });
    return done;
  }
  std::shared_ptr<double> spent = std::make_shared<double>(0.0);
};

// Whole chains without their factorisations, beside one product of rows * columns^2 multiply-adds.
void bench_presets(bench& b, std::size_t rows, std::size_t columns) {
  std::string const what =
      (rows < 100 ? "quick preset " : "preset ") + std::to_string(rows) + " x " + std::to_string(columns);
  if (!b.wanted(what)) return;
  std::size_t const tokens = columns * 4;
  matrix h = gram(columns, tokens), g = gram(rows, tokens);
  matrix weights(rows, columns, 0.02f, 3), work(rows, columns, 0.0f, 5);
  solve_report report;
  auto const chain = [&](std::string preset) {
    return [&, preset] {
      timed_factor const linalg{blas};
      double const all = seconds([&] {
        solve_context const context{.gram = h.view(), .tokens = tokens, .output_gram = g.view()};
        report = solve<nvfp4>(matrix_view<float const>(weights.view()), context, preset, linalg).report;
      });
      return all - *linalg.spent;
    };
  };
  auto const product = [&] { return seconds([&] { blas.add_product(1.0f, weights.view(), h.view(), work.view()); }); };
  for (auto const& [preset, goal] : {std::pair{"fast", 8.0}, std::pair{"best", 25.0}}) {
    b.run(what, {{"sgemm", product}, {preset, chain(preset), sense::at_most, goal}});
    for (auto const& stage : report.stages) {
      double const share = static_cast<double>(stage.changed) / static_cast<double>(weights.elements.size());
      std::printf("  %-20s %6.2f s, %zu passes, %.1f %% of the values changed\n", std::string(stage.name).c_str(),
                  stage.seconds, stage.passes, 100 * share);
    }
  }
}

void bench_factor(bench& b, std::size_t n) {
  std::string const what = "factor of the inverse, " + std::to_string(n);
  if (!b.wanted(what)) return;
  matrix const h = gram(n, n + n / 4);
  matrix work = h;
  auto const refresh = [&] { std::copy(h.elements.begin(), h.elements.end(), work.elements.begin()); };
  int const size = static_cast<int>(n);
  auto const factor = [&](lapack_backend const& linalg) {
    return [&, linalg] {
      refresh();
      return seconds([&] { linalg.factor_inverse(work.view()); });
    };
  };
  auto const classic = [&] {
    refresh();
    return seconds([&] {
      int info = 0;
      spotrf_("L", &size, work.elements.data(), &size, &info);
      spotri_("L", &size, work.elements.data(), &size, &info);
      spotrf_("L", &size, work.elements.data(), &size, &info);
    });
  };
  b.run(what, {{"potrf + potri + potrf", classic},
               {"lapack_backend", factor(blas), sense::at_most, 0.6},
               {"eigen_backend", factor(eigen_backend{})}});
}

void bench_gram(bench& b, std::size_t n, std::size_t tokens) {
  std::string const what = "Gram " + std::to_string(tokens) + " x " + std::to_string(n);
  if (!b.wanted(what)) return;
  matrix x(tokens, n, 1.0f, 1), h(n, n, 0.0f, 2);
  int const size = static_cast<int>(n), k = static_cast<int>(tokens);
  float const one = 1.0f;
  auto const triangle = [&] {
    return seconds(
        [&] { ssyrk_("L", "N", &size, &k, &one, x.elements.data(), &size, &one, h.elements.data(), &size); });
  };
  auto const whole = [&](lapack_backend const& linalg) {
    return [&, linalg] { return seconds([&] { linalg.add_gram(x.view(), h.view()); }); };
  };
  b.run(what, {{"ssyrk, one triangle", triangle},
               {"lapack_backend", whole(blas), sense::at_least, 0.85, true},
               {"eigen_backend", whole(eigen_backend{}), sense::none, 0, true}});
}

// Core type of OpenBLAS with the widest vectors of this processor; empty where it needs no help.
std::string widest_core() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) return "SKYLAKEX";
  if (__builtin_cpu_supports("avx2")) return "HASWELL";
#endif
  return "";
}

}  // namespace

int main(int argc, char** argv) {
  std::string const core = widest_core();
  if (!core.empty() && std::getenv("OPENBLAS_CORETYPE") == nullptr) {
    setenv("OPENBLAS_CORETYPE", core.c_str(), 1);
    execv("/proc/self/exe", argv);
    std::perror("starting again with another core type");
  }
  openblas_set_num_threads(1);
  std::map<std::string, std::string> options{{"--rounds", "5"}, {"--json", ""}, {"--only", ""}};
  for (int i = 1; i + 1 < argc; i += 2) options[argv[i]] = argv[i + 1];
  std::printf("OpenBLAS kernels: %s; ours: %s\n", openblas_get_corename(), active_kernels().isa);
  if (!core.empty() && strcasecmp(openblas_get_corename(), core.c_str()) != 0) {
    std::printf("These are not the widest: %s was expected. Ratios flatter us.\n", core.c_str());
  }
  bench b(std::stoi(options["--rounds"]), options["--only"]);
  if (options["--only"] == "quick") {  // whether everything runs
    bench_gptq(b, 96, 256);
    bench_presets(b, 96, 256);
  }
  bench_gptq(b, 4096, 4096);
  bench_gptq(b, 11008, 4096);
  bench_presets(b, 4096, 4096);
  bench_factor(b, 4096);
  bench_gram(b, 4096, 8192);
  if (!options["--json"].empty()) b.write_json(options["--json"]);
}
