/// @file
/// Exhaustive scale search.
#pragma once

#include <string_view>

#include "prismaquant/solver/solution.hpp"

namespace prismaquant {

/// For each block the scale with the smallest squared error, then elements to the nearest. Formats whose scale is not
/// swept (FP8, BF16) give the bytes of `rtn`. In a chain, `solve_context::importance` weighs the errors.
struct scale_sweep {
  static constexpr std::string_view name = "scale_sweep";
  using rule = sweep_rule;

  /// Without `solve_context::importance`: weigh errors by the diagonal of H.
  bool use_gram_diagonal = false;
  /// Try the two scales of "Four Over Six" only, where the format has that rule.
  bool four_over_six = false;
};

}  // namespace prismaquant
