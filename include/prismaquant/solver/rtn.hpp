/// @file
/// Round to nearest.
#pragma once

#include <string_view>

#include "prismaquant/solver/solution.hpp"

namespace prismaquant {

/// Scales from the largest magnitude of each block, elements to the nearest. The bytes of compressed-tensors' own
/// compressor.
struct rtn {
  static constexpr std::string_view name = "rtn";
  using rule = amax_rule;
};

}  // namespace prismaquant
