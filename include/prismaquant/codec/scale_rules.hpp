/// @file
/// Scale rules: which of a scale codec's codes a block gets. A rule sees one block at a time.
#pragma once

#include <algorithm>
#include <concepts>
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

/// Sum of importance * squared error, and the part of it that saturated elements have at least.
struct weighted_error {
  double total = 0.0;
  double saturated = 0.0;
};

/// `rounding_error` with each square multiplied by the importance of its element (finite, not negative). As `scale`
/// falls, `saturated` never falls, rounding included, and `total` is never below it.
template <format F, weight_type T>
constexpr weighted_error rounding_error(matrix_view<T const> block, matrix_view<float const> importance,
                                        float scale) noexcept {
  weighted_error sum;
  double const largest = double{F::element::max_value} * double{scale};
  for (std::size_t r = 0; r < block.rows; ++r) {
    for (std::size_t c = 0; c < block.columns; ++c) {
      float const w = block(r, c);
      double const h = double{importance(r, c)};
      double const difference = double{w} - double{F::element::decode(F::element::encode(w / scale))} * double{scale};
      double const beyond = std::max(double{magnitude(w)} - largest, 0.0);
      sum.total += h * (difference * difference);
      sum.saturated += h * (beyond * beyond);
    }
  }
  return sum;
}

/// The scale that maps the block's largest magnitude to the element's largest value, rounded to the scale codec (for
/// E8M0 as compressed-tensors rounds it).
struct amax_rule {
  static constexpr std::string_view name = "amax";
  /// The NVFP4 global scale lets the largest block use the whole E4M3 range.
  static constexpr float largest_block_scale = 448.0f;
  template <format F>
  static constexpr bool applies = true;

  template <format F, weight_type T>
  static constexpr typename F::scale::code_type choose(matrix_view<T const> block, float global_scale) noexcept {
    return F::scale::from_amax(block_amax(block), full_scale<typename F::element>, global_scale);
  }
};

/// The code with the smallest squared error in the scale codec's `sweep` window; the smallest code on ties. For NVFP4
/// the window holds every code that can be the best; for E8M0 two exponents, which misses only blocks of rare shape.
/// Errors are exact quotients and float64 sums: no estimate decides. Scales of 16 bits and more are not swept: they get
/// what `amax_rule` gives.
struct sweep_rule {
  static constexpr std::string_view name = "sweep";
  /// Leaves room for upward moves: 448 / 256 = 1.75 times amax / 6.
  static constexpr float largest_block_scale = 256.0f;
  template <format F>
  static constexpr bool applies = true;

  /// Whether the scales of `F` are swept.
  template <format F>
  static constexpr bool swept = requires {
    F::scale::min_code;
  };

  template <format F, weight_type T>
  static constexpr typename F::scale::code_type choose(matrix_view<T const> block, float global_scale) noexcept {
    if constexpr (!swept<F>) {
      return amax_rule::choose<F>(block, global_scale);
    } else {
      auto const window = F::scale::sweep(block_amax(block), full_scale<typename F::element>, global_scale);
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
  }

  /// The code with the smallest weighted squared error of all, the smallest code on ties. No bound from below holds
  /// here, since saturating an unimportant element costs little: the sweep goes on downwards from the end of the window
  /// (above it every element errs at least as much, whatever its importance) until the saturated elements alone cost
  /// more than the best so far. A block without any importance is swept unweighted.
  template <format F, weight_type T>
  static constexpr typename F::scale::code_type choose(matrix_view<T const> block, matrix_view<float const> importance,
                                                       float global_scale) noexcept {
    if constexpr (!swept<F>) {
      return amax_rule::choose<F>(block, global_scale);
    } else {
      if (block_amax(importance) == 0.0f) return choose<F>(block, global_scale);
      auto const window = F::scale::sweep(block_amax(block), full_scale<typename F::element>, global_scale);
      auto best = window.last;
      double least = std::numeric_limits<double>::infinity();
      for (unsigned code = window.last; code >= F::scale::min_code; --code) {
        auto const candidate = static_cast<typename F::scale::code_type>(code);
        auto const error = rounding_error<F>(block, importance, F::scale::decode(candidate, global_scale));
        if (error.saturated > least) break;
        if (error.total <= least) {
          least = error.total;
          best = candidate;
        }
      }
      return best;
    }
  }
};

/// A rule that chooses codes, says to which formats it `applies`, and how much of the E4M3 range the NVFP4 global scale
/// leaves to the largest block.
template <class R>
concept scale_rule = requires {
  { R::name } -> std::convertible_to<std::string_view>;
  { R::largest_block_scale } -> std::convertible_to<float>;
};

/// The global scale (a divisor) that `R` uses for matrices whose common largest magnitude is `amax`; 1 where the format
/// has none.
template <scale_rule R, format F>
constexpr float global_scale_for(float amax) noexcept {
  if constexpr (F::has_global_scale) {
    return F::global_scale(amax, R::largest_block_scale);
  } else {
    return 1.0f;
  }
}

/// Whether the choice of `R` depends on the importance of the elements.
template <class R, class F>
inline constexpr bool uses_importance = requires(matrix_view<float const> m, float x) {
  R::template choose<F>(m, m, x);
};

}  // namespace prismaquant
