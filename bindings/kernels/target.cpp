// The kernels of one instruction set. Compiled once per instruction set, each time with its flags; includes nothing but
// kernels, because an inline function of anybody else, compiled here, could become the program's only copy.
#include "prismaquant/codec/kernels/target_table.hpp"

namespace prismaquant::PRISMAQUANT_TARGET {

extern kernel_table const table;
constinit kernel_table const table = make_table();

}  // namespace prismaquant::PRISMAQUANT_TARGET
