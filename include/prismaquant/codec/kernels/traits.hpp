/// @file
/// How formats and rules map to kernels.
#pragma once

#include <concepts>
#include <type_traits>

#include "prismaquant/codec/scale_rule_list.hpp"

namespace prismaquant::detail {

/// Formats with groups along a row.
template <class F>
inline constexpr bool in_groups =
    has_scales<F> && !nested_format<F> && F::block_shape::rows == 1 && F::block_shape::columns > 1;

/// Formats with longer blocks, or without scales: they are coded run by run.
template <class F>
inline constexpr bool in_runs = !in_groups<F> && !nested_format<F>;

/// What the coding of a run depends on: formats that differ only in their blocks share kernels.
template <class Element, class Layout, class Scale>
struct run {
  using element = Element;
  using layout = Layout;
  using scale = Scale;
  using extra = no_extra;
};
template <class F>
using run_of = run<typename F::element, typename F::layout, std::conditional_t<has_scales<F>, float32_scale, no_scale>>;

/// The rule whose choice `Rule` makes for `F`.
template <class F, class Rule>
using chosen_by = std::conditional_t<has_zero_points<F> || (std::same_as<Rule, sweep_rule> && !sweep_rule::swept<F>),
                                     amax_rule, Rule>;

/// Whether `Rule` chooses scales of `F`, rather than taking given ones.
template <class F, class Rule>
inline constexpr bool chooses = has_scales<F>&& Rule::template applies<F> && !std::same_as<Rule, given_rule>;

}  // namespace prismaquant::detail
