/// @file
/// The trade-off between bytes and loss over all budgets.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <tuple>
#include <vector>

#include "prismaquant/allocator/hull.hpp"
#include "prismaquant/allocator/problem.hpp"

namespace prismaquant {

/// A vertex of the frontier.
struct frontier_point {
  std::int64_t bytes = 0;
  double loss = 0;
};

/// All vertices of the lower convex hull of (bytes, loss) over all choices, in increasing bytes.
///
/// The first point is the fewest bytes (and the least loss at that many), the last the least loss (and the fewest bytes
/// for it). Each vertex is the loss that `allocate` finds with the vertex's bytes as budget; between vertices the hull
/// is a lower bound of it. Bytes are exact and strictly increase, losses do not increase. Each loss is a sum of
/// positive terms, so that its relative error is at most (number of candidates) * 2^-53, whatever the largest loss is.
/// Vertices that lie on one line up to the rounding of their slopes may be listed or left out.
///
/// The hull of a sum is the sum of the hulls: all segments of all items in order of slope. An empty problem has the
/// one point {0, 0}.
/// @throws error, numeric_error as `allocate` does.
inline std::vector<frontier_point> frontier(std::span<allocation_item const> items) {
  struct segment {
    double slope;
    std::int64_t bytes;
    double saved;
  };
  detail::check_items(items);
  auto const menu = detail::build_menu(items, std::numeric_limits<std::int64_t>::max());
  std::vector<segment> segments;
  frontier_point point;
  for (std::size_t i = 0; i < menu.size(); ++i) {
    auto const list = menu.item(i);
    auto const* vertex = &list.front();
    for (auto const& option : list.subspan(1)) {
      if (option.slope == 0) continue;
      segments.push_back({option.slope, option.bytes - vertex->bytes, vertex->loss - option.loss});
      vertex = &option;
    }
    point.bytes = detail::add_bytes(point.bytes, vertex->bytes);
    point.loss += vertex->loss;
  }
  // From the largest choice down, so that losses only grow: nothing cancels. All fields take part in the order, since
  // the order of the additions decides their last bits.
  std::sort(segments.begin(), segments.end(), [](segment const& a, segment const& b) {
    return std::tie(a.slope, a.bytes, a.saved) < std::tie(b.slope, b.bytes, b.saved);
  });
  std::vector<frontier_point> points = {point};
  for (std::size_t k = 0; k < segments.size(); ++k) {
    point.bytes -= segments[k].bytes;
    point.loss += segments[k].saved;
    // Segments of equal slope are one edge of the hull.
    if (k + 1 < segments.size() && segments[k + 1].slope == segments[k].slope) continue;
    points.push_back(point);
  }
  std::reverse(points.begin(), points.end());
  return points;
}

}  // namespace prismaquant
