/// @file
/// Exhaustive scale search.
#pragma once

#include <string_view>

#include "prismaquant/solver/solution.hpp"

namespace prismaquant {

/// For each block the scale with the smallest squared error, then elements to the nearest. Formats whose scale is not
/// swept (FP8, BF16) give the bytes of `rtn`.
struct scale_sweep {
  static constexpr std::string_view name = "scale_sweep";
  using rule = sweep_rule;
};

}  // namespace prismaquant
