/// @file
/// The one list of solvers.
#pragma once

#include <string_view>
#include <tuple>

#include "prismaquant/core/named_list.hpp"
#include "prismaquant/solver/rtn.hpp"
#include "prismaquant/solver/scale_sweep.hpp"

namespace prismaquant {

using solver_list = std::tuple<rtn, scale_sweep>;

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

}  // namespace prismaquant
