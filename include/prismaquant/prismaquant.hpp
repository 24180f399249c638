/// @file
/// Umbrella header: formats, codec, solvers and allocator. Not included: JSON (`io/`) and adaptors (`adapt/`), which
/// need other libraries.
#pragma once

#include "prismaquant/allocator/constrained.hpp"
#include "prismaquant/allocator/frontier.hpp"
#include "prismaquant/allocator/knapsack.hpp"
#include "prismaquant/allocator/sweep.hpp"
#include "prismaquant/codec/codec.hpp"
#include "prismaquant/codec/roundtrip.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "prismaquant/solver/solver_list.hpp"
#include "prismaquant/version.hpp"
