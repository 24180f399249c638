/// @file
/// Lists of types that have a `name`: the mechanism behind the format list and the solver list.
#pragma once

#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "prismaquant/core/error.hpp"

namespace prismaquant {

/// Calls `visitor(T{})` for every type of the tuple `List`, in its order.
template <class List, class Visitor>
void for_each_named(Visitor&& visitor) {
  [&]<class... T>(std::type_identity<std::tuple<T...>>) { (visitor(T{}), ...); }(std::type_identity<List>{});
}

/// Calls `visitor(T{})` for the type of the tuple `List` whose name is `name`.
/// @throws format_error if there is none; the message says `kind` and lists the known names.
template <class List, class Visitor>
void visit_named(char const* kind, std::string_view name, Visitor&& visitor) {
  bool found = false;
  std::string known;
  for_each_named<List>([&]<class T>(T chosen) {
    known += (known.empty() ? "" : ", ") + std::string(T::name);
    if (T::name == name) {
      found = true;
      visitor(chosen);
    }
  });
  if (!found) throw format_error("unknown " + std::string(kind) + " '" + std::string(name) + "'; known: " + known);
}

}  // namespace prismaquant
