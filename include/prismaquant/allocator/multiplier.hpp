/// @file
/// The price of a byte: the slope at which a budget breaks the hulls of all items.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "prismaquant/allocator/hull.hpp"

namespace prismaquant::detail {

/// The slope (loss per byte) of the hull segment that no longer fits when all segments of all items are bought from
/// the steepest down with `slack` bytes; 0 if all of them fit.
///
/// All segments steeper than the result fit together. The result does not depend on the order of the items, nor on how
/// the standard library partitions. Linear time: halves are partitioned by slope, only one of them is looked at again.
inline double break_slope(menu const& items, std::int64_t slack) {
  struct segment {
    double slope;
    std::int64_t bytes;
  };
  std::vector<segment> segments;
  segments.reserve(items.options.size());
  std::int64_t total = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    auto const list = items.item(i);
    std::int64_t vertex = list[0].bytes;
    for (auto const& option : list.subspan(1)) {
      if (option.slope == 0) continue;
      segments.push_back({option.slope, option.bytes - vertex});
      vertex = option.bytes;
    }
    total = add_bytes(total, list.back().bytes - list.front().bytes);
  }
  if (total <= slack) return 0;

  // Invariant: the segments before `fit` fit, those before `break_end` do not.
  auto fit = segments.begin();
  auto break_end = segments.end();
  while (break_end - fit > 1) {
    auto const middle = fit + (break_end - fit) / 2;
    std::nth_element(fit, middle, break_end, [](segment const& a, segment const& b) { return a.slope > b.slope; });
    std::int64_t bytes = 0;
    for (auto s = fit; s != middle; ++s) bytes += s->bytes;
    if (bytes <= slack) {
      slack -= bytes;
      fit = middle;
    } else {
      break_end = middle;
    }
  }
  return fit == break_end ? 0 : fit->slope;
}

}  // namespace prismaquant::detail
