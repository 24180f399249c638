/// @file
/// Which solver kernels serve a format: those of the linked library, else those compiled here. Null where there is
/// none.
#pragma once

#include "prismaquant/solver/kernels/table.hpp"

#if defined(PRISMAQUANT_KERNEL_LIBRARY)  // defined by the CMake target prismaquant::kernels
#include "prismaquant/solver/kernels/library.hpp"
#else
#include "prismaquant/solver/kernels/target_table.hpp"
#endif

namespace prismaquant::detail {

template <class F>
format_solver_kernels solver_kernels() {
#if defined(PRISMAQUANT_KERNEL_LIBRARY)
  constexpr std::size_t place = place_in<F, format_list>;
  if constexpr (place < std::tuple_size_v<format_list>) return active_solver_kernels().formats[place];
#elif defined(PRISMAQUANT_HAS_VECTORS)
  return PRISMAQUANT_TARGET::solver_kernels_of<F>();
#endif
  return {};
}

}  // namespace prismaquant::detail
