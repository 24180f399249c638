/// @file
/// The Gram of the output gradients as solvers use it: its diagonal blocks, per token and damped.
#pragma once

#include <algorithm>
#include <optional>
#include <string>

#include "prismaquant/solver/damping.hpp"

namespace prismaquant::detail {

/// Diagonal blocks of G, one below the other. All zeros become the identity: then rows are not coupled.
class output_blocks {
 public:
  output_blocks() = default;

  /// `sum` [rows, rows] or [rows, b], see `solve_context::output_gram`; `wanted` as `two_sided::block`.
  /// @throws shape_error, numeric_error
  output_blocks(matrix_view<float const> sum, std::size_t rows, std::size_t wanted, std::size_t count,
                std::optional<float> damping) {
    block_ = block_of(sum.columns, rows, wanted);
    require_gram("output_gram", sum, rows, sum.columns);
    damping_ = damping ? double{*damping} : damping_rule(rows, count);
    blocks_ = dense_matrix(rows, block_);
    double trace = 0.0;
    for (std::size_t r = 0; r < rows; ++r) {
      std::size_t const first = r / block_ * block_;
      for (std::size_t c = 0; c < std::min(block_, rows - first); ++c) {
        blocks_.row(r)[c] = static_cast<float>(double{sum(r, first % sum.columns + c)} / static_cast<double>(count));
      }
      trace += double{blocks_.row(r)[r - first]};
    }
    double const mean = trace / static_cast<double>(rows), added = mean > 0.0 ? damping_ * mean : 1.0;
    if (!(mean > 0.0)) damping_ = 1.0;
    for (std::size_t r = 0; r < rows; ++r) {
      float& diagonal = blocks_.row(r)[r % block_];
      diagonal = static_cast<float>(double{diagonal} + added);
    }
  }

  /// Rows of a block, given the columns of the caller's matrix.
  /// @throws shape_error
  static std::size_t block_of(std::size_t columns, std::size_t rows, std::size_t wanted) {
    constexpr std::size_t most = 4096, usual = 128;
    if (columns == 0 || columns > rows) {
      throw shape_error("output_gram has " + std::to_string(columns) + " columns, expected " + std::to_string(rows) +
                        ", one per row of the weight, or the rows of its diagonal blocks");
    }
    bool const whole = columns == rows;
    if (!whole && wanted != 0 && wanted < columns && columns % wanted != 0) {
      throw shape_error("output_gram has diagonal blocks of " + std::to_string(columns) +
                        " rows, which do not divide into the " + std::to_string(wanted) + " that two_sided asks for");
    }
    return std::min(columns, wanted != 0 ? wanted : !whole || rows <= most ? columns : usual);
  }

  std::size_t block() const noexcept { return block_; }
  std::size_t count() const noexcept { return block_ == 0 ? 0 : (blocks_.rows() + block_ - 1) / block_; }
  double damping() const noexcept { return damping_; }

  /// Block `i`, square.
  matrix_view<float const> part(std::size_t i) const noexcept {
    std::size_t const n = std::min(block_, blocks_.rows() - i * block_);
    return blocks_.view().part(i * block_, 0, n, n);
  }

 private:
  dense_matrix blocks_;
  std::size_t block_ = 0;
  double damping_ = 0.0;
};

}  // namespace prismaquant::detail
