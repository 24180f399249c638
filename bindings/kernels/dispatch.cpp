// Chooses one of the compiled-in tables of kernels.
#include <atomic>
#include <cstdlib>
#include <span>

#include "prismaquant/codec/kernels/library.hpp"
#include "prismaquant/core/error.hpp"

namespace prismaquant {

#define PRISMAQUANT_DECLARE(target) \
  namespace target {                \
  extern kernel_table const table;  \
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

std::vector<kernel_table const*> tables_of_this_processor() {
  std::vector<kernel_table const*> found{&scalar};
#if defined(__x86_64__)
  __builtin_cpu_init();  // the queries below also ask whether the operating system saves the registers
  found.push_back(&isa_baseline::table);
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return found;
  found.push_back(&isa_avx2::table);
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl") ||
      !__builtin_cpu_supports("avx512cd")) {
    return found;
  }
  found.push_back(&isa_avx512::table);
  if (__builtin_cpu_supports("avx512vbmi")) found.push_back(&isa_avx512_vbmi::table);
#elif defined(__aarch64__)
  found.push_back(&isa_neon::table);
#endif
  return found;
}

std::vector<kernel_table const*> const& tables() {
  static std::vector<kernel_table const*> const found = tables_of_this_processor();
  return found;
}

kernel_table const* find(std::string_view name, char const* asked_by) {
  std::string known;
  for (auto const* const table : tables()) {
    if (name == table->isa) return table;
    known += (known.empty() ? "" : ", ") + std::string(table->isa);
  }
  throw format_error(std::string(asked_by) + " '" + std::string(name) +
                     "' is not available; this processor can run: " + known);
}

std::atomic<kernel_table const*> active{nullptr};

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (auto const* const table : tables()) names.emplace_back(table->isa);
  return names;
}

kernel_table const& active_kernels() {
  auto const* table = active.load(std::memory_order_acquire);
  if (table == nullptr) {
    char const* const wanted = std::getenv("PRISMAQUANT_ISA");
    table = wanted != nullptr && *wanted != '\0' ? find(wanted, "PRISMAQUANT_ISA") : tables().back();
    active.store(table, std::memory_order_release);
  }
  return *table;
}

void use_isa(std::string_view name) { active.store(find(name, "instruction set"), std::memory_order_release); }

}  // namespace prismaquant
