/// @file
/// Matrices of solvers.
#pragma once

#include "prismaquant/core/matrix_view.hpp"
#include "prismaquant/solver/aligned_floats.hpp"

namespace prismaquant::detail {

/// A row-major float32 matrix that owns its elements, zeroed. Rows are filled up to a multiple of 16 elements with
/// zeros, which stay zero: kernels read and write them with the others.
class dense_matrix {
 public:
  dense_matrix() = default;
  dense_matrix(std::size_t rows, std::size_t columns)
      : rows_(rows), columns_(columns), stride_((columns + 15) / 16 * 16), elements_(rows * stride_) {}

  matrix_view<float> view() noexcept {
    return {elements_.data(), rows_, columns_, static_cast<std::ptrdiff_t>(stride_), 1};
  }
  matrix_view<float const> view() const noexcept { return const_cast<dense_matrix*>(this)->view(); }
  float* row(std::size_t r) noexcept { return elements_.data() + r * stride_; }
  float const* row(std::size_t r) const noexcept { return elements_.data() + r * stride_; }
  std::size_t rows() const noexcept { return rows_; }
  std::size_t columns() const noexcept { return columns_; }
  std::size_t stride() const noexcept { return stride_; }

 private:
  std::size_t rows_ = 0, columns_ = 0, stride_ = 0;
  aligned_floats elements_;
};

/// What a chain of solvers works on, whatever the format.
struct working_state {
  dense_matrix target;    ///< [rows, columns] what the values should be
  dense_matrix values;    ///< [rows, columns] on the grid of the format under `scales`
  dense_matrix scales;    ///< [rows, groups] effective scales; rows that share a block repeat them
  dense_matrix zeros;     ///< like `scales`: what is subtracted before scaling; empty where the format has none
  dense_matrix slopes;    ///< [rows, columns] (values - target) H; empty where they are not known (see `update_slopes`)
  std::size_t group = 0;  ///< columns that share a scale
  float global_scale = 1;  ///< of formats that have one
  bool has_values = false;

  /// To be called where values or target change otherwise than together with `slopes`.
  void forget_slopes() { slopes = {}; }
};

}  // namespace prismaquant::detail
