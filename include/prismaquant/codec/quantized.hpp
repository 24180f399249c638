/// @file
/// A quantized matrix: owning (`quantized_matrix`) and borrowed (`quantized_view`).
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "prismaquant/core/dense_view.hpp"
#include "prismaquant/core/error.hpp"
#include "prismaquant/formats/format.hpp"

namespace prismaquant {

namespace detail {
inline std::string shape_text(std::size_t rows, std::size_t columns) {
  return std::to_string(rows) + " x " + std::to_string(columns);
}

template <class T>
void require_shape(char const* what, matrix_view<T> const& m, std::size_t rows, std::size_t columns) {
  if (m.rows == rows && m.columns == columns) return;
  throw shape_error(std::string(what) + " is " + shape_text(m.rows, m.columns) + ", expected " +
                    shape_text(rows, columns));
}

inline void require_global_scale(float global_scale) {
  if (is_finite(global_scale) && global_scale > 0.0f) return;
  throw numeric_error("global_scale is " + std::to_string(global_scale) + ", expected a positive finite number");
}
}  // namespace detail

/// Codes, scales and extra words that somebody else owns; const for decoding.
template <format F, bool Const>
struct basic_quantized_view {
  using word = std::conditional_t<Const, typename F::layout::word const, typename F::layout::word>;
  using scale_code = std::conditional_t<Const, typename F::scale::code_type const, typename F::scale::code_type>;
  using extra_word = std::conditional_t<Const, typename F::extra::word const, typename F::extra::word>;

  std::size_t rows = 0;     ///< rows of the matrix that the codes stand for
  std::size_t columns = 0;  ///< columns of that matrix
  matrix_view<word> codes;
  matrix_view<scale_code> scales;  ///< empty where the format has none
  float global_scale = 1.0f;       ///< divisor; 1 where the format has none
  matrix_view<extra_word> extra;   ///< what `F::extra` says; empty where the format has none

  operator basic_quantized_view<F, true>() const noexcept requires(!Const) {
    return {rows, columns, codes, scales, global_scale, extra};
  }

  /// @throws shape_error if codes, scales or extra do not have the shapes that `F` stores, numeric_error if the global
  /// scale is not a positive finite number.
  void validate() const {
    storage_shape const s = stored<F>(rows, columns);
    detail::require_shape("codes", codes, s.code_rows, s.code_columns);
    detail::require_shape("scales", scales, s.scale_rows, s.scale_columns);
    detail::require_shape("extra", extra, s.extra_rows, s.extra_columns);
    detail::require_global_scale(global_scale);
  }
};

template <format F>
using quantized_view = basic_quantized_view<F, false>;
template <format F>
using const_quantized_view = basic_quantized_view<F, true>;

/// Owning codes, scales and extra words of a `rows` x `columns` matrix, zeroed.
template <format F>
class quantized_matrix {
 public:
  quantized_matrix(std::size_t rows, std::size_t columns, float global_scale = 1.0f)
      : rows_(rows), columns_(columns), global_scale_(global_scale), shape_(stored<F>(rows, columns)) {
    codes_.resize(shape_.code_rows * shape_.code_columns);
    scales_.resize(shape_.scale_rows * shape_.scale_columns);
    extra_.resize(shape_.extra_rows * shape_.extra_columns);
  }

  quantized_view<F> view() noexcept {
    return {rows_,
            columns_,
            row_major(codes_.data(), shape_.code_rows, shape_.code_columns),
            row_major(scales_.data(), shape_.scale_rows, shape_.scale_columns),
            global_scale_,
            row_major(extra_.data(), shape_.extra_rows, shape_.extra_columns)};
  }
  const_quantized_view<F> view() const noexcept { return const_cast<quantized_matrix*>(this)->view(); }

  std::size_t rows() const noexcept { return rows_; }
  std::size_t columns() const noexcept { return columns_; }
  float global_scale() const noexcept { return global_scale_; }
  std::vector<typename F::layout::word> const& codes() const noexcept { return codes_; }
  std::vector<typename F::scale::code_type> const& scales() const noexcept { return scales_; }
  std::vector<typename F::extra::word> const& extra() const noexcept { return extra_; }

 private:
  template <class T>
  static matrix_view<T> row_major(T* data, std::size_t rows, std::size_t columns) noexcept {
    return {data, rows, columns, static_cast<std::ptrdiff_t>(columns), 1};
  }

  std::size_t rows_, columns_;
  float global_scale_;
  storage_shape shape_;
  std::vector<typename F::layout::word> codes_;
  std::vector<typename F::scale::code_type> scales_;
  std::vector<typename F::extra::word> extra_;
};

}  // namespace prismaquant
