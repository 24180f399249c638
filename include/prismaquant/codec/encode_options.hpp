/// @file
/// What an encoder may be told beside the weights and the scale rule.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "prismaquant/codec/quantized.hpp"
#include "prismaquant/core/float_types.hpp"
#include "prismaquant/core/matrix_view.hpp"

namespace prismaquant {

struct encode_options {
  /// How much the squared error of each element counts (finite, not negative), in the shape of the weights; row stride
  /// 0 for one number per column. Empty: all count the same. Rules that look at the largest magnitude only ignore it.
  matrix_view<float const> importance = {};
  /// Infinite weights are not an error, but taken as the largest finite magnitude of the matrix. NaN stays an error.
  bool saturate = false;
};

/// Largest finite magnitude of a matrix; 0 if there is none.
template <weight_type T>
float finite_amax(matrix_view<T const> weights) noexcept {
  float amax = 0.0f;
  for (std::size_t r = 0; r < weights.rows; ++r) {
    for (std::size_t c = 0; c < weights.columns; ++c) {
      float const value = weights(r, c);
      if (is_finite(value)) amax = std::max(amax, magnitude(value));
    }
  }
  return amax;
}

namespace detail {

/// A dense copy in which infinite values are replaced by the largest finite magnitude.
template <weight_type T>
std::vector<T> saturated(matrix_view<T const> weights) {
  T const largest = round_to<T>(finite_amax(weights));  // exact: it is one of them
  T const lowest = round_to<T>(-float(largest));
  std::vector<T> copy;
  copy.reserve(weights.rows * weights.columns);
  for (std::size_t r = 0; r < weights.rows; ++r) {
    for (std::size_t c = 0; c < weights.columns; ++c) {
      float const value = weights(r, c);
      copy.push_back(is_finite(value) ? weights(r, c) : value > 0.0f ? largest : lowest);
    }
  }
  return copy;
}

/// @throws shape_error, numeric_error
inline void require_importance(matrix_view<float const> importance, std::size_t rows, std::size_t columns) {
  if (importance.data == nullptr) return;
  require_shape("importance", importance, rows, columns);
  for (std::size_t r = 0; r < (importance.row_stride != 0 ? rows : std::min<std::size_t>(rows, 1)); ++r) {
    for (std::size_t c = 0; c < columns; ++c) {
      float const h = importance(r, c);
      if (is_finite(h) && h >= 0.0f) continue;
      throw numeric_error("importance is " + std::to_string(h) + " at row " + std::to_string(r) + ", column " +
                          std::to_string(c) + ", expected finite numbers, not negative");
    }
  }
}

inline matrix_view<float const> part_of(matrix_view<float const> importance, std::size_t r, std::size_t c,
                                        std::size_t rows, std::size_t columns) noexcept {
  return importance.data != nullptr ? importance.part(r, c, rows, columns) : importance;
}

/// Scales that the caller gave must be positive and finite.
/// @throws numeric_error
template <format F>
void require_given(const_quantized_view<F> q) requires has_scales<F> {
  for (std::size_t i = 0; i < q.scales.rows; ++i) {
    for (std::size_t j = 0; j < q.scales.columns; ++j) {
      float const scale = F::scale::decode(q.scales(i, j), q.global_scale);
      if (is_finite(scale) && scale > 0.0f) continue;
      throw numeric_error("scales: the one at row " + std::to_string(i) + ", column " + std::to_string(j) + " is " +
                          std::to_string(scale) + ", expected a positive finite number");
    }
  }
}

template <class T>
void clear(matrix_view<T> words) noexcept {
  for (std::size_t r = 0; r < words.rows; ++r) {
    for (std::size_t c = 0; c < words.columns; ++c) words(r, c) = T{};
  }
}

}  // namespace detail

}  // namespace prismaquant
