/// @file
/// The solver kernels of the instruction set that this translation unit is compiled for, as a table.
#pragma once

#include "prismaquant/codec/kernels/traits.hpp"
#include "prismaquant/solver/kernels/descent.hpp"
#include "prismaquant/solver/kernels/gptq.hpp"
#include "prismaquant/solver/kernels/table.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

template <class F>
constexpr format_solver_kernels solver_kernels_of() {
  format_solver_kernels k{};
  if constexpr (has_scales<F> && !has_zero_points<F>) {
    k.gptq = &gptq_with_scales<typename F::element>;
    k.descent = &descend_strip<typename F::element, void>;
    k.spread = &spread_steps;
    if constexpr (detail::in_groups<F>) k.descent_refit = &descend_strip<typename F::element, group_refit<F>>;
  }
  if constexpr (detail::in_groups<F>) {
    if constexpr (requires { sizeof(scale_window<typename F::scale>); }) k.gptq_sweep = &gptq_with_sweep<F>;
  }
  return k;
}

constexpr solver_kernel_table make_solver_table() {
  return []<class... Formats>(std::type_identity<std::tuple<Formats...>>) {
    return solver_kernel_table{{solver_kernels_of<Formats>()...}};
  }(std::type_identity<format_list>{});
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
