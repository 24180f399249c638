// Chooses one of the compiled-in instruction sets: a table of codec kernels and one of solver kernels.
#include <atomic>
#include <cstdlib>
#include <span>

#include "prismaquant/codec/kernels/library.hpp"
#include "prismaquant/core/error.hpp"
#include "prismaquant/solver/kernels/library.hpp"

namespace prismaquant {

#define PRISMAQUANT_DECLARE(target)              \
  namespace target {                             \
  extern kernel_table const table;               \
  extern solver_kernel_table const solver_table; \
  }
#if defined(__x86_64__)
PRISMAQUANT_DECLARE(isa_baseline)
PRISMAQUANT_DECLARE(isa_avx2)
PRISMAQUANT_DECLARE(isa_avx512)
PRISMAQUANT_DECLARE(isa_avx512_vbmi)
#elif defined(__aarch64__)
PRISMAQUANT_DECLARE(isa_neon)
#endif

namespace {

constexpr kernel_table scalar{.isa = "scalar"};
constexpr solver_kernel_table scalar_solver;

struct instruction_set {
  kernel_table const* codec;
  solver_kernel_table const* solver;
};

std::vector<instruction_set> sets_of_this_processor() {
  std::vector<instruction_set> found{{&scalar, &scalar_solver}};
#if defined(__x86_64__)
  __builtin_cpu_init();  // the queries below also ask whether the operating system saves the registers
  found.push_back({&isa_baseline::table, &isa_baseline::solver_table});
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return found;
  found.push_back({&isa_avx2::table, &isa_avx2::solver_table});
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl") ||
      !__builtin_cpu_supports("avx512cd")) {
    return found;
  }
  found.push_back({&isa_avx512::table, &isa_avx512::solver_table});
  if (__builtin_cpu_supports("avx512vbmi")) found.push_back({&isa_avx512_vbmi::table, &isa_avx512_vbmi::solver_table});
#elif defined(__aarch64__)
  found.push_back({&isa_neon::table, &isa_neon::solver_table});
#endif
  return found;
}

std::vector<instruction_set> const& sets() {
  static std::vector<instruction_set> const found = sets_of_this_processor();
  return found;
}

instruction_set const* find(std::string_view name, char const* asked_by) {
  std::string known;
  for (auto const& set : sets()) {
    if (name == set.codec->isa) return &set;
    known += (known.empty() ? "" : ", ") + std::string(set.codec->isa);
  }
  throw format_error(std::string(asked_by) + " '" + std::string(name) +
                     "' is not available; this processor can run: " + known);
}

std::atomic<instruction_set const*> active{nullptr};

instruction_set const& active_set() {
  auto const* set = active.load(std::memory_order_acquire);
  if (set == nullptr) {
    char const* const wanted = std::getenv("PRISMAQUANT_ISA");
    set = wanted != nullptr && *wanted != '\0' ? find(wanted, "PRISMAQUANT_ISA") : &sets().back();
    active.store(set, std::memory_order_release);
  }
  return *set;
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (auto const& set : sets()) names.emplace_back(set.codec->isa);
  return names;
}

kernel_table const& active_kernels() { return *active_set().codec; }
solver_kernel_table const& active_solver_kernels() { return *active_set().solver; }

void use_isa(std::string_view name) { active.store(find(name, "instruction set"), std::memory_order_release); }

}  // namespace prismaquant
