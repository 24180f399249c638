/// @file
/// Checks what a chain of solvers is told, and brings it into the form that stages use.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "prismaquant/solver/memory.hpp"
#include "prismaquant/solver/output_gram.hpp"

namespace prismaquant::detail {

inline bool is_zero(matrix_view<float const> m) {
  for (std::size_t r = 0; r < m.rows; ++r) {
    for (std::size_t c = 0; c < m.columns; ++c) {
      if (m(r, c) != 0.0f) return false;
    }
  }
  return true;
}

inline bool any_of(std::span<stage const> stages, bool needs_of_stage::*what) {
  return std::any_of(stages.begin(), stages.end(), [&](stage const& s) { return needs_of(s).*what; });
}

inline void require_damping(char const* name, std::optional<float> share) {
  if (!share || (is_finite(*share) && *share >= 0.0f)) return;
  throw numeric_error(std::string(name) + " is " + std::to_string(*share) + ", expected a finite number, not negative");
}

/// @throws shape_error, numeric_error
inline void require_statistics(std::size_t rows, std::size_t columns, solve_context const& context,
                               std::span<stage const> stages) {
  std::string const needed_by = "; see stages_for, which leaves out what cannot run";
  if (any_of(stages, &needs_of_stage::gram) && context.gram.data == nullptr) {
    throw shape_error("gram is missing, and a stage needs it" + needed_by);
  }
  if (any_of(stages, &needs_of_stage::output_gram) && context.output_gram.data == nullptr) {
    throw shape_error("output_gram is missing, and two_sided needs it" + needed_by);
  }
  if (any_of(stages, &needs_of_stage::cross_gram) && context.cross_gram.data == nullptr) {
    throw shape_error("cross_gram is missing, and shift needs it" + needed_by);
  }
  if (context.gram.data != nullptr) require_gram("gram", context.gram, columns, columns);
  if (context.pooled_gram.data != nullptr) require_gram("pooled_gram", context.pooled_gram, columns, columns);
  if (context.cross_gram.data != nullptr) {
    require_shape("cross_gram", context.cross_gram, columns, columns);
    require_finite("cross_gram", context.cross_gram);
  }
  if (context.output_gram.data != nullptr) {
    output_blocks::block_of(context.output_gram.columns, rows, 0);
    require_gram("output_gram", context.output_gram, rows, context.output_gram.columns);
  }
  require_damping("damping", context.damping);
  require_damping("output_damping", context.output_damping);
}

/// `stages` once everything is checked that can be before any work; `scale_sweep` alone for an expert without tokens.
/// @throws shape_error, numeric_error, format_error
template <format F, weight_type T>
std::vector<stage> usable_stages(matrix_view<T const> weights, solve_context const& context,
                                 std::span<stage const> stages) {
  encode_options const options{.importance = context.importance};
  require_fitting<F>(weights, options);
  require_finite("weight", weights);
  if (context.global_scale) require_global_scale(*context.global_scale);
  if (stages.empty()) throw format_error("a chain of solvers needs at least one stage");
  std::vector<stage> usable(stages.begin(), stages.end());
  for (std::size_t i = 0; i < usable.size(); ++i) {
    if (!has_gram_solvers<F> && needs_of(usable[i]).gram) {
      throw format_error("solver '" + std::string(name_of(usable[i])) + "' is not for " + std::string(F::name));
    }
    if (std::holds_alternative<shift>(usable[i]) && (i != 0 || usable.size() == 1)) {
      throw format_error("shift moves the target of the stages after it: it must come first, and not alone");
    }
  }
  bool const coupled = std::holds_alternative<two_sided>(usable.back());
  require_memory(weights.rows, weights.columns, usable, coupled, context);
  require_statistics(weights.rows, weights.columns, context, usable);
  if (context.gram.data == nullptr || context.tokens != 0) return usable;
  if (!is_zero(context.gram)) throw numeric_error("tokens is 0, but gram is not: how many inputs does it sum?");
  return {scale_sweep{}};
}

/// Grams of a chain, ready to use.
struct statistics {
  template <executor Executor>
  statistics(solve_context const& given, std::span<stage const> stages, std::size_t rows, std::size_t columns,
             Executor& executor)
      : context(given) {
    if (knows_gram(given)) {
      double const share = given.damping ? double{*given.damping} : damping_rule(columns, given.tokens);
      h = damped_gram(mean_gram(given.gram, given.tokens, given.pooled_gram, given.pooled_tokens, executor), share);
    }
    weights = h.view().columns == 0 ? given.importance : matrix_view<float const>{};
    for (std::size_t c = 0; c < h.view().columns; ++c) diagonal.push_back(h.view()(c, c));
    rows_ = rows;
    if (auto const* const last = std::get_if<two_sided>(&stages.back())) g = blocks_of(*last);
  }

  std::size_t block_of(two_sided const& s) const {
    return output_blocks::block_of(context.output_gram.columns, rows_, s.block);
  }
  output_blocks blocks_of(two_sided const& s) const {
    auto const count = context.output_tokens != 0 ? context.output_tokens : context.tokens;
    return {context.output_gram, rows_, s.block, count, context.output_damping};
  }

  /// What a sweep weighs errors with.
  matrix_view<float const> sweep_weights(bool use_gram_diagonal) const {
    if (context.importance.data != nullptr || !use_gram_diagonal || diagonal.empty()) return context.importance;
    return {diagonal.data(), rows_, diagonal.size(), 0, 1};
  }

  solve_context const& context;
  damped_gram h;
  output_blocks g;                   ///< of the yardstick; empty where the last stage is not two-sided
  matrix_view<float const> weights;  ///< importance, where there is no H
  std::vector<float> diagonal;       ///< of H

 private:
  std::size_t rows_;
};

}  // namespace prismaquant::detail
