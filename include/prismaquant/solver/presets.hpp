/// @file
/// Which stages of a chain can run with what is known.
#pragma once

#include <string>
#include <vector>

#include "prismaquant/codec/kernels/traits.hpp"
#include "prismaquant/solver/solver_list.hpp"

namespace prismaquant {

/// Whether solvers that use H can solve `F`: formats with scales of their own.
template <format F>
inline constexpr bool has_gram_solvers = has_scales<F> && !nested_format<F>;

namespace detail {

struct needs_of_stage {
  bool gram = false, output_gram = false, cross_gram = false;
};

inline needs_of_stage needs_of(stage const& s) {
  bool const gram = !std::holds_alternative<rtn>(s) && !std::holds_alternative<scale_sweep>(s);
  return {gram, std::holds_alternative<two_sided>(s), std::holds_alternative<shift>(s)};
}

inline bool knows_gram(solve_context const& context) { return context.gram.data != nullptr && context.tokens != 0; }

}  // namespace detail

/// The stages of the preset called `name` for weights in `F` and what `context` knows: without cross Gram no shift,
/// without output Gram nothing two-sided, without Gram, tokens or scales (BF16) the data-free sweep.
/// @throws format_error if there is no such preset; the message lists the known names.
template <format F>
std::vector<stage> stages_for(std::string_view name, solve_context const& context) {
  std::string known;
  for (auto const& preset : solver_presets()) {
    known += (known.empty() ? "" : ", ") + std::string(preset.name);
    if (preset.name != name) continue;
    std::vector<stage> stages;
    for (auto const& s : preset.stages) {
      auto const needs = detail::needs_of(s);
      if (needs.gram && !(has_gram_solvers<F> && detail::knows_gram(context))) continue;
      if (needs.output_gram && context.output_gram.data == nullptr) continue;
      if (needs.cross_gram && context.cross_gram.data == nullptr) continue;
      stages.push_back(s);
    }
    if (stages.empty()) stages.push_back(scale_sweep{});
    return stages;
  }
  throw format_error("unknown preset '" + std::string(name) + "'; known: " + known);
}

}  // namespace prismaquant
