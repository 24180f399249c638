/// @file
/// What a set of solver kernels for one instruction set offers. They never throw or allocate, and expect the
/// floating-point environment of `fp_environment_guard`. An empty entry: there is none. Unlike those of the codec,
/// their results may differ between instruction sets in the last bit, because products are fused where they can be.
#pragma once

#include "prismaquant/codec/kernels/table.hpp"
#include "prismaquant/solver/kernels/strip.hpp"
#include "prismaquant/solver/kernels/tile.hpp"

namespace prismaquant {

struct format_solver_kernels {
  gptq_tile_kernel* gptq = nullptr;        ///< with given scales
  gptq_tile_kernel* gptq_sweep = nullptr;  ///< with scales chosen as their group is reached
  strip_kernel* descent = nullptr;         ///< coordinate descent with given scales
  strip_kernel* descent_refit = nullptr;   ///< the same, and the scale of each group after its columns
  spread_kernel* spread = nullptr;         ///< what the changes of a strip mean to all columns
};

/// Kernels of one instruction set, formats in the order of the format list.
struct solver_kernel_table {
  format_solver_kernels formats[std::tuple_size_v<format_list>] = {};
};

}  // namespace prismaquant
