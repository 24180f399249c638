/// @file
/// Scale rules: which of a scale codec's codes a block gets. A rule sees one block at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string_view>

#include "prismaquant/core/matrix_view.hpp"
#include "prismaquant/formats/format.hpp"

namespace prismaquant {

/// Largest magnitude of a block; 0 for an empty one. The block must be finite.
template <weight_type T>
constexpr float block_amax(matrix_view<T const> block) noexcept {
  float amax = 0.0f;
  for (std::size_t r = 0; r < block.rows; ++r) {
    for (std::size_t c = 0; c < block.columns; ++c) amax = std::max(amax, magnitude(block(r, c)));
  }
  return amax;
}

/// Sum of squared errors of rounding a block to the element grid under `scale`, in float64, row by row.
template <format F, weight_type T>
constexpr double rounding_error(matrix_view<T const> block, float scale) noexcept {
  double sum = 0.0;
  for (std::size_t r = 0; r < block.rows; ++r) {
    for (std::size_t c = 0; c < block.columns; ++c) {
      float const w = block(r, c);
      double const difference = double{w} - double{F::element::decode(F::element::encode(w / scale))} * double{scale};
      sum += difference * difference;
    }
  }
  return sum;
}

/// The scale that maps the block's largest magnitude to the element's largest value, rounded to the scale codec.
struct amax_rule {
  static constexpr std::string_view name = "amax";
  /// The NVFP4 global scale lets the largest block use the whole E4M3 range.
  static constexpr float largest_block_scale = 448.0f;

  template <format F, weight_type T>
  static constexpr typename F::scale::code_type choose(matrix_view<T const> block, float global_scale) noexcept {
    return F::scale::from_amax(block_amax(block), F::element::max_value, global_scale);
  }
};

/// The code with the smallest squared error in the scale codec's `sweep` window; the smallest code on ties. For NVFP4 the
/// window holds every code that can be the best; for E8M0 two exponents, which misses only blocks of rare shape. Errors
/// are exact quotients and float64 sums: no estimate decides.
struct sweep_rule {
  static constexpr std::string_view name = "sweep";
  /// Leaves room for upward moves: 448 / 256 = 1.75 times amax / 6.
  static constexpr float largest_block_scale = 256.0f;

  template <format F, weight_type T>
  static constexpr typename F::scale::code_type choose(matrix_view<T const> block, float global_scale) noexcept {
    auto const window = F::scale::sweep(block_amax(block), F::element::max_value, global_scale);
    auto best = window.first;
    if (window.first == window.last) return best;
    double least = std::numeric_limits<double>::infinity();
    for (unsigned code = window.first; code <= window.last; ++code) {
      auto const candidate = static_cast<typename F::scale::code_type>(code);
      double const error = rounding_error<F>(block, F::scale::decode(candidate, global_scale));
      if (error < least) {
        least = error;
        best = candidate;
      }
    }
    return best;
  }
};

template <class R>
concept scale_rule = requires {
  { R::name } -> std::convertible_to<std::string_view>;
  { R::largest_block_scale } -> std::convertible_to<float>;
};

}  // namespace prismaquant
