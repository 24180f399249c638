/// @file
/// Rows of matrices as the kernels see them: contiguous memory, and where decoded values go.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "prismaquant/codec/error_sums.hpp"
#include "prismaquant/codec/kernels/select.hpp"
#include "prismaquant/core/matrix_view.hpp"

namespace prismaquant::detail {

template <class T>
bool has_contiguous_rows(matrix_view<T> const& m) noexcept {
  return m.column_stride == 1 || m.columns <= 1;
}

/// Outputs of more than 16 MiB are written past the caches: they would not be there when they are read.
template <class T>
bool is_larger_than_caches(matrix_view<T> const& m) noexcept {
  return m.rows * m.columns * sizeof(T) > std::size_t{16} << 20;
}

/// Rows of a matrix as contiguous memory: the matrix's own where it is contiguous, else a copy that lasts until the
/// next row is asked for. An empty matrix has null rows.
template <class T>
class contiguous_rows {
 public:
  explicit contiguous_rows(matrix_view<T const> m) : m_(m) {
    if (!has_contiguous_rows(m)) copy_.resize(m.columns);
  }

  T const* row(std::size_t r) {
    if (m_.data == nullptr) return nullptr;
    if (copy_.empty()) return &m_(r, 0);
    for (std::size_t c = 0; c < m_.columns; ++c) copy_[c] = m_(r, c);
    return copy_.data();
  }

  /// Bytes from a row to the next, to be asked for while a row is at hand; the usual distance ahead where that is no
  /// help.
  std::size_t bytes_to_next_row() const noexcept {
    constexpr std::size_t usual = 4096, most = std::size_t{1} << 18;
    auto const bytes = static_cast<std::size_t>(m_.row_stride) * sizeof(T);
    return m_.row_stride > 0 && copy_.empty() && bytes <= most ? bytes : usual;
  }

 private:
  matrix_view<T const> m_;
  std::vector<T> copy_;
};

/// Decoded values of a row go to a matrix.
template <weight_type Out>
class matrix_target {
 public:
  using value_type = Out;

  explicit matrix_target(matrix_view<Out> out) : out_(out), stream_(is_larger_than_caches(out)) {
    if (!has_contiguous_rows(out)) row_.resize(out.columns);
  }

  /// Where values of row r from column c on are to be decoded to. As many as there is room for at `most` at once.
  Out* place(std::size_t r, std::size_t c) { return row_.empty() ? &out_(r, c) : row_.data() + c; }
  static constexpr std::size_t most = std::size_t{1} << 30;
  bool stream() const noexcept { return stream_ && row_.empty(); }

  template <class T>
  void done(std::size_t r, std::size_t c, std::size_t count, T const* /*weights*/) {
    if (row_.empty()) return;
    for (std::size_t k = c; k < c + count; ++k) out_(r, k) = row_[k];
  }

 private:
  matrix_view<Out> out_;
  bool stream_;
  std::vector<Out> row_;
};

/// Decoded values of a row are compared with the weights.
class error_target {
 public:
  using value_type = float;

  explicit error_target(row_errors& errors) : errors_(errors) {}

  float* place(std::size_t, std::size_t) { return values_.data(); }
  static constexpr std::size_t most = 2048;
  static constexpr bool stream() noexcept { return false; }

  /// `c` is a multiple of 16: element c is the first of the 16 lanes.
  template <class T>
  void done(std::size_t r, std::size_t, std::size_t count, T const* weights) {
    auto& sums = errors_.row(r);
    errors_adder<T>()(weights, values_.data(), count, sums.squared_error.data(), sums.squared_weight.data(),
                      sums.max_error.data());
  }

 private:
  row_errors& errors_;
  std::array<float, most> values_;
};

}  // namespace prismaquant::detail
