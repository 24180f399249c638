/// @file
/// How errors are added up, the same for every executor and instruction set: float64, in each row on 16 virtual lanes
/// (column c to lane c % 16), the lanes by a fixed tree, the rows in order.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "prismaquant/core/fp_environment.hpp"

namespace prismaquant {

/// How far decoded values are from the weights.
struct error_summary {
  double squared_error = 0.0;   ///< sum of (decoded - weight)^2
  double squared_weight = 0.0;  ///< sum of weight^2
  double max_error = 0.0;       ///< largest |decoded - weight|

  /// Signal to noise ratio in decibel; infinite if the error is zero.
  double snr_db() const noexcept {
    if (squared_error == 0.0) return std::numeric_limits<double>::infinity();
    return 10.0 * std::log10(squared_weight / squared_error);
  }
};

namespace detail {

/// Sums of one row, by lane.
struct error_lanes {
  static constexpr std::size_t count = 16;
  std::array<double, count> squared_error{}, squared_weight{}, max_error{};

  void add(std::size_t c, float weight, float value) noexcept {
    std::size_t const lane = c % count;
    double const difference = double{value} - double{weight};
    squared_error[lane] += difference * difference;
    squared_weight[lane] += double{weight} * double{weight};
    max_error[lane] = std::max(max_error[lane], difference < 0.0 ? -difference : difference);
  }

  /// Lane l and lane l + 8, l and l + 4, and so on.
  static double sum(std::array<double, count> lanes) noexcept {
    for (std::size_t half = count / 2; half != 0; half /= 2) {
      for (std::size_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    }
    return lanes[0];
  }
};

class row_errors {
 public:
  explicit row_errors(std::size_t rows) : rows_(rows) {}

  error_lanes& row(std::size_t r) noexcept { return rows_[r]; }

  error_summary sum() const noexcept {
    fp_environment_guard const guard;
    error_summary total;
    for (auto const& row : rows_) {
      total.squared_error += error_lanes::sum(row.squared_error);
      total.squared_weight += error_lanes::sum(row.squared_weight);
      total.max_error = std::max(total.max_error, *std::max_element(row.max_error.begin(), row.max_error.end()));
    }
    return total;
  }

 private:
  std::vector<error_lanes> rows_;
};

}  // namespace detail

}  // namespace prismaquant
