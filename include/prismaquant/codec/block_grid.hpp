/// @file
/// One block of a quantized matrix: what is chosen for it, and how its elements are rounded and decoded.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <type_traits>

#include "prismaquant/codec/quantized.hpp"
#include "prismaquant/codec/scale_rule_list.hpp"

namespace prismaquant::detail {

/// Scale code and, where the format has zero points, the code that stands for zero.
template <format F>
struct block_choice {
  typename F::scale::code_type scale{};
  typename F::element::code_type zero_point{};
};

/// The values that the elements of a block can take, in the order of operations of compressed-tensors, all float32.
template <format F>
struct block_grid {
  float scale = 1.0f;
  float zero = 0.0f;

  constexpr block_grid() noexcept = default;
  constexpr block_grid(block_choice<F> choice, float global_scale) noexcept
      : scale(F::scale::decode(choice.scale, global_scale)) {
    if constexpr (has_zero_points<F>) zero = F::element::decode(choice.zero_point);
  }

  constexpr typename F::element::code_type encode(float weight) const noexcept {
    if constexpr (!has_scales<F>) return F::element::encode(weight);
    if constexpr (has_zero_points<F>) return F::element::encode(weight / scale + zero);
    return F::element::encode(weight / scale);
  }
  constexpr float decode(typename F::element::code_type code) const noexcept {
    if constexpr (has_zero_points<F>) return (F::element::decode(code) - zero) * scale;
    return F::element::decode(code) * scale;
  }
};

/// Scale and zero point of a block whose values, zero among them, reach from `low` to `high`: compressed-tensors'
/// `calculate_qparams`, but with the zero point from the scale as it is stored.
template <format F, weight_type T>
constexpr block_choice<F> choose_range(matrix_view<T const> block) noexcept {
  using element = typename F::element;
  float low = 0.0f, high = 0.0f;
  for (std::size_t r = 0; r < block.rows; ++r) {
    for (std::size_t c = 0; c < block.columns; ++c) {
      low = std::min<float>(low, block(r, c));
      high = std::max<float>(high, block(r, c));
    }
  }
  constexpr float steps = element::max_value - element::min_value;
  float const span = std::min(high - low, std::numeric_limits<float>::max());  // a wider block saturates
  auto const scale = F::scale::from_amax(span, steps, 1.0f);
  return {scale, element::encode(element::min_value - low / F::scale::decode(scale, 1.0f))};
}

template <format F, scale_rule Rule, weight_type T>
constexpr typename F::scale::code_type choose_scale(matrix_view<T const> block, matrix_view<float const> importance,
                                                    float global_scale) noexcept {
  if constexpr (uses_importance<Rule, F>) {
    if (importance.data != nullptr) return Rule::template choose<F>(block, importance, global_scale);
  }
  return Rule::template choose<F>(block, global_scale);
}

/// What `Rule` chooses for one block. Small blocks are first copied to the stack as float32: a sweep reads them often.
template <format F, scale_rule Rule, weight_type T>
constexpr block_choice<F> choose_block(matrix_view<T const> block, matrix_view<float const> importance,
                                       float global_scale) noexcept {
  constexpr std::size_t size = F::block_shape::rows * F::block_shape::columns;
  if constexpr (has_zero_points<F>) {
    return choose_range<F>(block);
  } else if constexpr (size != 0 && size <= 128) {
    std::array<float, size> values{};
    for (std::size_t c = 0; c < block.columns; ++c) values[c] = block(0, c);
    matrix_view<float const> const dense{values.data(), 1, block.columns, 0, 1};
    return {choose_scale<F, Rule>(dense, importance, global_scale), {}};
  } else {
    return {choose_scale<F, Rule>(block, importance, global_scale), {}};
  }
}

/// Writes what was chosen for block (i, j).
template <format F>
constexpr void put_choice(quantized_view<F> out, std::size_t i, std::size_t j, block_choice<F> choice) noexcept {
  out.scales(i, j) = choice.scale;
  if constexpr (has_zero_points<F>) F::extra::put(out.extra, i, j, choice.zero_point);
}

/// Reads what was chosen for block (i, j).
template <format F>
constexpr block_choice<F> get_choice(const_quantized_view<F> q, std::size_t i, std::size_t j) noexcept {
  block_choice<F> choice{q.scales(i, j), {}};
  if constexpr (has_zero_points<F>) choice.zero_point = F::extra::get(q.extra, i, j);
  return choice;
}

/// Runs `body(begin, end)` over rows of blocks, in ranges of which no two write to the same word.
template <format F, class Executor, class Body>
void for_block_rows(Executor& executor, std::size_t block_rows, Body&& body) {
  if constexpr (has_zero_points<F>) {
    constexpr std::size_t step = F::extra::rows_per_word;
    executor.for_ranges((block_rows + step - 1) / step, [&](std::size_t begin, std::size_t end) {
      body(begin * step, std::min(end * step, block_rows));
    });
  } else {
    executor.for_ranges(block_rows, body);
  }
}

}  // namespace prismaquant::detail
