/// @file
/// The one list of solvers, and the chains of them that have a name.
#pragma once

#include <array>
#include <string_view>
#include <tuple>
#include <variant>
#include <vector>

#include "prismaquant/core/named_list.hpp"
#include "prismaquant/solver/coordinate_descent.hpp"
#include "prismaquant/solver/gptq.hpp"
#include "prismaquant/solver/rtn.hpp"
#include "prismaquant/solver/scale_sweep.hpp"
#include "prismaquant/solver/shift.hpp"
#include "prismaquant/solver/two_sided.hpp"

namespace prismaquant {

using solver_list = std::tuple<rtn, scale_sweep, shift, gptq, coordinate_descent, two_sided>;

/// Calls `visitor(S{})` for every solver of the list, in its order.
template <class Visitor>
void for_each_solver(Visitor&& visitor) {
  for_each_named<solver_list>(visitor);
}

/// Calls `visitor(S{})` for the solver called `name`.
/// @throws format_error if there is none; the message lists the known names.
template <class Visitor>
void visit_solver(std::string_view name, Visitor&& visitor) {
  visit_named<solver_list>("solver", name, visitor);
}

/// One stage of a chain: any solver of the list, with its options.
using stage = decltype([]<class... S>(std::type_identity<std::tuple<S...>>) {
  return std::variant<S...>();
}(std::type_identity<solver_list>{}));

inline std::string_view name_of(stage const& s) {
  return std::visit([](auto const& options) -> std::string_view { return options.name; }, s);
}

/// The solver called `name`, with its default options.
/// @throws format_error
inline stage make_stage(std::string_view name) {
  stage result;
  visit_solver(name, [&](auto chosen) { result = chosen; });
  return result;
}

/// A chain with a name. Costs are for [R, C] weights beside the factorisation of H, in products of as many
/// multiply-adds as W H; memory beside the arguments is in floats.
struct solver_preset {
  std::string_view name;
  std::string_view what;
  std::string_view cost;
  std::string_view peak_memory;
  std::vector<stage> stages;
};

/// All presets, cheapest first. Stages that need what is not known are left out (see `stages_for`).
inline std::vector<solver_preset> solver_presets() {
  return {
      {"rtn", "round to nearest under amax scales", "none", "2 RC", {rtn{}}},
      {"scale_sweep", "every block gets the scale with the least squared error", "none", "2 RC", {scale_sweep{}}},
      {"fast",
       "GPTQ with scales chosen in the loop, coordinate descent, one two-sided pass over blocks of 128 rows",
       "0.5 (GPTQ) + 1 (slopes) + C / 128 per 1 % of the weights that change",
       "the larger of 2.5 CC + 3 RC and CC + 4 RC; with a shift 3 CC + 4 RC",
       {shift{}, gptq{}, coordinate_descent{.sweeps = 2}, two_sided{.block = 128, .passes = 1}}},
      {"best",
       "the same to the end: four sweeps, three two-sided passes, all rows coupled up to 4096 of them",
       "as fast, and 1.5 R / C for each of 3 passes, R / C for each of 3 measurements",
       "as fast, and RR",
       {shift{}, gptq{}, coordinate_descent{}, two_sided{}}},
  };
}

}  // namespace prismaquant
