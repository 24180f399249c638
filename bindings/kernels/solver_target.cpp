// The solver kernels of one instruction set; see target.cpp.
#include "prismaquant/solver/kernels/target_table.hpp"

namespace prismaquant::PRISMAQUANT_TARGET {

extern solver_kernel_table const solver_table;
constinit solver_kernel_table const solver_table = make_solver_table();

}  // namespace prismaquant::PRISMAQUANT_TARGET
