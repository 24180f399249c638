/// @file
/// In which order GPTQ takes the columns.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

#include "prismaquant/core/matrix_view.hpp"

namespace prismaquant {

enum class column_order {
  automatic,         ///< `group_activation` where scales are chosen in the loop, else `activation`
  natural,           ///< as they stand
  activation,        ///< by falling diagonal of H
  group_activation,  ///< groups by the falling sum of their diagonal; inside of a group by falling diagonal
};

namespace detail {

/// Column indices in the order `kind`, ties as they stand. Groups of `group` columns stay together for
/// `group_activation`, so that their scales can be chosen one after the other and need no index in the file.
inline std::vector<std::size_t> ordered_columns(column_order kind, matrix_view<float const> h, std::size_t group) {
  std::size_t const n = h.columns;
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (kind == column_order::natural) return order;
  std::vector<double> key(kind == column_order::group_activation ? (n + group - 1) / group : 0);
  for (std::size_t c = 0; c < n && !key.empty(); ++c) key[c / group] += double{h(c, c)};
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    if (!key.empty() && a / group != b / group) {
      double const x = key[a / group], y = key[b / group];
      return x != y ? x > y : a < b;
    }
    return h(a, a) > h(b, b);
  });
  return order;
}

}  // namespace detail

}  // namespace prismaquant
