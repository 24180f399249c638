/// @file
/// What a number format is: an element codec, a scale codec, a block shape and a storage layout, four separate types,
/// and where it stores more than codes and scales, what that is.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "prismaquant/core/packing.hpp"
#include "prismaquant/formats/extra.hpp"
#include "prismaquant/formats/minifloat.hpp"
#include "prismaquant/formats/scale_codecs.hpp"

namespace prismaquant {

/// Shape of the block of elements that share one scale; 0 stands for the whole axis.
template <std::size_t Rows, std::size_t Columns>
struct block {
  static constexpr std::size_t rows = Rows;
  static constexpr std::size_t columns = Columns;
};

/// A number format. `ragged_blocks` says whether the last block of an axis may be cut off by the matrix edge.
template <class F>
concept format = element_codec<typename F::element> && requires {
  { F::name } -> std::convertible_to<std::string_view>;
  { F::has_global_scale } -> std::convertible_to<bool>;
  { F::ragged_blocks } -> std::convertible_to<bool>;
  typename F::scale;
  typename F::block_shape;
  typename F::layout;
  requires extra_storage<typename F::extra>;
};

/// Whether `F` stores a scale per block.
template <class F>
inline constexpr bool has_scales = F::scale::bits != 0;

/// A format whose codes are those of `F::base`, and whose block scales are stored quantized.
template <class F>
concept nested_format = format<F> && requires {
  typename F::base;
};

/// Shapes of what is stored for a `rows` x `columns` matrix.
struct storage_shape {
  std::size_t code_rows, code_columns;    ///< words of the element codes
  std::size_t scale_rows, scale_columns;  ///< block scales; 0 x 0 where the format has none
  std::size_t extra_rows, extra_columns;  ///< words of `F::extra`; 0 x 0 where the format has none
};

/// Shapes of codes and scales of a matrix in format `F`; partial blocks count as whole ones.
template <format F>
constexpr storage_shape stored(std::size_t rows, std::size_t columns) noexcept {
  auto const blocks = [](std::size_t length, std::size_t block_length) {
    return block_length == 0 ? std::size_t{1} : (length + block_length - 1) / block_length;
  };
  storage_shape shape{rows, F::layout::words(columns), 0, 0, 0, 0};
  if constexpr (has_scales<F>) {
    shape.scale_rows = blocks(rows, F::block_shape::rows);
    shape.scale_columns = blocks(columns, F::block_shape::columns);
    shape.extra_rows = F::extra::rows(shape.scale_rows, shape.scale_columns);
    shape.extra_columns = F::extra::columns(shape.scale_rows, shape.scale_columns);
  }
  return shape;
}

/// Bytes of codes, block scales, extra words and (one per matrix) global scale.
template <format F>
constexpr std::size_t stored_bytes(std::size_t rows, std::size_t columns) noexcept {
  storage_shape const s = stored<F>(rows, columns);
  return s.code_rows * s.code_columns * sizeof(typename F::layout::word) +
         s.scale_rows * s.scale_columns * (F::scale::bits / 8) +
         s.extra_rows * s.extra_columns * sizeof(typename F::extra::word) + (F::has_global_scale ? sizeof(float) : 0);
}

}  // namespace prismaquant
