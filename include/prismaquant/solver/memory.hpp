/// @file
/// How much memory a chain of solvers needs, and how much there is.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <string>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

#include "prismaquant/solver/presets.hpp"

namespace prismaquant::detail {

/// Bytes of memory of this machine; the largest number where that cannot be asked.
inline double physical_memory() {
#if defined(_SC_PHYS_PAGES) && defined(_SC_PAGESIZE)
  long const pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
  if (pages > 0 && size > 0) return static_cast<double>(pages) * static_cast<double>(size);
#endif
  return 1e300;
}

inline bool uses_gram(stage const& s) {
  auto const* const sweep = std::get_if<scale_sweep>(&s);
  return needs_of(s).gram || (sweep != nullptr && sweep->use_gram_diagonal);
}

/// Bytes that `stages` allocate at their peak, without what grows with rows only or columns only.
inline double peak_memory(std::size_t rows, std::size_t columns, std::span<stage const> stages, bool coupled) {
  double const rc = static_cast<double>(rows) * static_cast<double>(columns);
  double const cc = static_cast<double>(columns) * static_cast<double>(columns);
  double const state = stages.size() > 1 ? 3 * rc : 2 * rc;  // target, values, those of the stage before
  double gram = 0, most = 0;
  for (auto const& s : stages) {
    if (uses_gram(s)) gram = cc;
    double const extra = std::holds_alternative<gptq>(s)    ? 1.5 * cc  // U, then its strips
                         : std::holds_alternative<shift>(s) ? 2 * cc + 2 * rc
                                                            : 0.0;
    most = std::max(most, extra);
  }
  double const g = coupled ? static_cast<double>(rows) * static_cast<double>(rows) : 0.0;
  return sizeof(float) * (state + gram + g + std::max(most, gram != 0 ? rc : 0.0));  // rc: slopes
}

inline std::string gigabytes(double bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f GB", bytes / 1e9);
  return text;
}

inline double allowed_memory(solve_context const& context) {
  return context.memory_limit != 0 ? static_cast<double>(context.memory_limit) : 0.9 * physical_memory();
}

/// @throws shape_error if the stages that use H need more memory than there may be.
inline void require_memory(std::size_t rows, std::size_t columns, std::span<stage const> stages, bool coupled,
                           solve_context const& context) {
  auto const first = std::find_if(stages.begin(), stages.end(), uses_gram);
  if (first == stages.end() || (!needs_of(*first).gram && !knows_gram(context))) return;
  double const needed = peak_memory(rows, columns, stages, coupled), allowed = allowed_memory(context);
  if (needed <= allowed) return;
  throw shape_error("weight is " + shape_text(rows, columns) + ": solver '" + std::string(name_of(*first)) +
                    "' and those after it would allocate " + gigabytes(needed) + ", " + gigabytes(allowed) +
                    " are allowed; take rtn or scale_sweep, which need no matrix of columns x columns, or raise "
                    "memory_limit");
}

/// `context`, without a Gram that would only serve to measure data-free stages and takes more memory than there may be.
inline solve_context affordable(solve_context context, std::size_t rows, std::size_t columns,
                                std::span<stage const> stages) {
  if (!knows_gram(context) || std::any_of(stages.begin(), stages.end(), uses_gram)) return context;
  double const gram = sizeof(float) * static_cast<double>(columns) * static_cast<double>(columns);
  if (peak_memory(rows, columns, stages, false) + gram > allowed_memory(context)) {
    context.gram = context.pooled_gram = {};
  }
  return context;
}

}  // namespace prismaquant::detail
