/// @file
/// Kernels chosen at run time: the interface of the compiled library `prismaquant::kernels`. Programs that link it get
/// the best instruction set of the processor that they run on; programs that only include the headers get the one that
/// they are compiled for. The bytes are the same.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "prismaquant/codec/kernels/table.hpp"

namespace prismaquant {

/// Names that `use_isa` accepts on this processor, narrowest first. "scalar" is the codec without kernels.
std::vector<std::string> available_isas();

/// The kernels in use: those that `PRISMAQUANT_ISA` names, or else the widest that the processor has. Decided at the
/// first call.
/// @throws format_error if the variable names none of `available_isas()`; the message lists them.
kernel_table const& active_kernels();

/// Puts other kernels to use, for the whole program. For tests and benchmarks; results never depend on it.
/// @throws format_error as above.
void use_isa(std::string_view name);

}  // namespace prismaquant
