/// @file
/// Solver kernels chosen at run time, as `codec/kernels/library.hpp` chooses those of the codec.
#pragma once

#include "prismaquant/codec/kernels/library.hpp"
#include "prismaquant/solver/kernels/table.hpp"

namespace prismaquant {

/// The solver kernels of the instruction set in use.
solver_kernel_table const& active_solver_kernels();

}  // namespace prismaquant
