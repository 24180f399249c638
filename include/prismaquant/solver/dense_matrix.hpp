/// @file
/// Memory of solvers.
#pragma once

#include <cstddef>
#include <vector>

#include "prismaquant/core/matrix_view.hpp"

namespace prismaquant::detail {

/// A row-major float32 matrix that owns its elements, zeroed.
class dense_matrix {
 public:
  dense_matrix() = default;
  dense_matrix(std::size_t rows, std::size_t columns) : rows_(rows), columns_(columns), elements_(rows * columns) {}

  matrix_view<float> view() noexcept {
    return {elements_.data(), rows_, columns_, static_cast<std::ptrdiff_t>(columns_), 1};
  }
  matrix_view<float const> view() const noexcept { return const_cast<dense_matrix*>(this)->view(); }
  float* row(std::size_t r) noexcept { return elements_.data() + r * columns_; }
  float const* row(std::size_t r) const noexcept { return elements_.data() + r * columns_; }
  std::size_t rows() const noexcept { return rows_; }
  std::size_t columns() const noexcept { return columns_; }

 private:
  std::size_t rows_ = 0, columns_ = 0;
  std::vector<float> elements_;
};

/// What a chain of solvers works on, whatever the format.
struct working_state {
  dense_matrix target;     ///< [rows, columns] what the values should be
  dense_matrix values;     ///< [rows, columns] on the grid of the format under `scales`
  dense_matrix scales;     ///< [rows, groups] effective scales; rows that share a block repeat them
  dense_matrix zeros;      ///< like `scales`: what is subtracted before scaling; empty where the format has none
  std::size_t group = 0;   ///< columns that share a scale
  float global_scale = 1;  ///< of formats that have one
  bool has_values = false;
};

}  // namespace prismaquant::detail
