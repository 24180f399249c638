/// @file
/// What a format stores per matrix beside codes and block scales, as one more matrix of words.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "prismaquant/core/packing.hpp"

namespace prismaquant {

/// Most formats: nothing.
struct no_extra {
  static constexpr std::string_view name = "";
  using word = std::uint8_t;
  static constexpr std::size_t rows(std::size_t /*scale_rows*/, std::size_t /*scale_columns*/) noexcept { return 0; }
  static constexpr std::size_t columns(std::size_t /*scale_rows*/, std::size_t /*scale_columns*/) noexcept { return 0; }
};

/// One element code per block, the code that stands for zero: eight 4-bit codes per int32, packed along the rows, row
/// 8k in the lowest bits; nibbles beyond the last row are zero (compressed-tensors `weight_zero_point`).
struct packed_zero_points {
  static constexpr std::string_view name = "zero_points";
  using word = packed_int32_nibbles::word;
  /// Rows of blocks that share a word, and so must be written by one thread.
  static constexpr std::size_t rows_per_word = packed_int32_nibbles::codes_per_word;

  static constexpr std::size_t rows(std::size_t scale_rows, std::size_t /*scale_columns*/) noexcept {
    return packed_int32_nibbles::words(scale_rows);
  }
  static constexpr std::size_t columns(std::size_t /*scale_rows*/, std::size_t scale_columns) noexcept {
    return scale_columns;
  }
  /// Code of the block in row `i`, column `j` of the scales.
  static constexpr std::uint8_t get(matrix_view<word const> words, std::size_t i, std::size_t j) noexcept {
    return packed_int32_nibbles::get(transposed(words), j, i);
  }
  static constexpr void put(matrix_view<word> words, std::size_t i, std::size_t j, std::uint8_t code) noexcept {
    packed_int32_nibbles::put(transposed(words), j, i, code);
  }

 private:
  template <class T>
  static constexpr matrix_view<T> transposed(matrix_view<T> m) noexcept {
    return {m.data, m.columns, m.rows, m.column_stride, m.row_stride};
  }
};

/// What is needed to decode block scales that are themselves quantized in runs of 256 (bitsandbytes' double
/// quantization): one row of float32, first the offset, then the scale of each run.
struct nested_scales {
  static constexpr std::string_view name = "nested_scales";
  using word = float;
  static constexpr std::size_t run = 256;

  static constexpr std::size_t rows(std::size_t /*scale_rows*/, std::size_t /*scale_columns*/) noexcept { return 1; }
  static constexpr std::size_t columns(std::size_t scale_rows, std::size_t scale_columns) noexcept {
    return 1 + (scale_rows * scale_columns + run - 1) / run;
  }
};

/// Describes a matrix of words whose shape follows from that of the block scales.
template <class X>
concept extra_storage = requires(std::size_t n) {
  { X::name } -> std::convertible_to<std::string_view>;
  typename X::word;
  { X::rows(n, n) } -> std::same_as<std::size_t>;
  { X::columns(n, n) } -> std::same_as<std::size_t>;
};

/// Whether blocks of `F` have a zero point.
template <class F>
inline constexpr bool has_zero_points = std::same_as<typename F::extra, packed_zero_points>;

}  // namespace prismaquant
