/// @file
/// What of each item is worth choosing: input checks, the Pareto list of each item, and the slopes of its convex hull.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "prismaquant/allocator/problem.hpp"
#include "prismaquant/core/error.hpp"

namespace prismaquant::detail {

/// No sum of bytes may exceed this (2 EiB). It leaves room for a reduced cost, loss plus multiplier times bytes, in
/// the 63 bits of an int64.
inline constexpr std::int64_t byte_limit = std::int64_t{1} << 61;

/// `total + bytes`. Both must be in [0, byte_limit].
/// @throws numeric_error if the sum exceeds byte_limit.
inline std::int64_t add_bytes(std::int64_t total, std::int64_t bytes) {
  if (bytes > byte_limit - total) throw numeric_error("the bytes of the items sum to more than 2^61");
  return total + bytes;
}

/// Checks every number of the problem.
/// @return the smallest number of bytes that any choice needs.
/// @throws error for an item without candidates; numeric_error for negative bytes, a loss that is NaN, infinite or
/// negative, or a minimum over byte_limit. The message names item and candidate.
inline std::int64_t check_items(std::span<allocation_item const> items) {
  auto const fail = [](std::size_t item, std::size_t index, std::string const& problem) {
    throw numeric_error("item " + std::to_string(item) + ", candidate " + std::to_string(index) + ": " + problem);
  };
  std::int64_t total = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    auto const& candidates = items[i].candidates;
    if (candidates.empty()) throw error("item " + std::to_string(i) + " has no candidates");
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    for (std::size_t j = 0; j < candidates.size(); ++j) {
      auto const [bytes, loss] = candidates[j];
      if (bytes < 0) fail(i, j, std::to_string(bytes) + " bytes; bytes must not be negative");
      if (!std::isfinite(loss) || loss < 0) {
        char text[32];
        std::snprintf(text, sizeof text, "%g", loss);
        fail(i, j, std::string(text) + " as loss; a loss must be finite and not negative");
      }
      least = std::min(least, bytes);
    }
    total = add_bytes(total, least);
  }
  return total;
}

/// A candidate that is on the Pareto list of its item.
struct menu_option {
  std::int64_t bytes;
  double loss;
  /// Loss saved per byte on the way here from the previous vertex of the item's lower convex hull: infinite for the
  /// first vertex, 0 for an option that is no vertex. Strictly decreasing over the vertices of an item.
  double slope;
  std::uint32_t candidate;
};

/// The Pareto lists of all items, one after the other: in each, bytes strictly increase and losses strictly decrease.
/// Of equal candidates the first one is listed.
struct menu {
  std::vector<menu_option> options;
  std::vector<std::size_t> first = {0};  ///< item i owns options[first[i]] up to, not including, options[first[i + 1]]

  std::size_t size() const { return first.size() - 1; }
  std::span<menu_option const> item(std::size_t i) const {
    return std::span(options).subspan(first[i], first[i + 1] - first[i]);
  }
};

/// Fills in the slopes of one Pareto list.
inline void find_hull(std::span<menu_option> list, std::vector<std::size_t>& vertices) {
  vertices.assign(1, 0);
  list[0].slope = std::numeric_limits<double>::infinity();
  for (std::size_t k = 1; k < list.size(); ++k) {
    // Slopes are compared as they are stored, not by cross products, so that they decrease in spite of rounding.
    auto const slope_from_last = [&] {
      auto const& last = list[vertices.back()];
      return (last.loss - list[k].loss) / static_cast<double>(list[k].bytes - last.bytes);
    };
    double slope = slope_from_last();
    while (slope >= list[vertices.back()].slope) {
      list[vertices.back()].slope = 0;
      vertices.pop_back();
      slope = slope_from_last();
    }
    list[k].slope = slope;
    vertices.push_back(k);
  }
}

/// Builds the Pareto lists of items that passed check_items. Candidates that cost over `slack` bytes more than the
/// smallest of their item are left out: no choice that fits has them.
inline menu build_menu(std::span<allocation_item const> items, std::int64_t slack) {
  auto const before = [](menu_option const& a, menu_option const& b) {
    if (a.bytes != b.bytes) return a.bytes < b.bytes;
    if (a.loss != b.loss) return a.loss < b.loss;
    return a.candidate < b.candidate;
  };
  menu result;
  result.first.reserve(items.size() + 1);
  std::size_t count = 0;
  for (auto const& item : items) count += item.candidates.size();
  result.options.reserve(count);

  std::vector<menu_option> sorted;
  std::vector<std::size_t> vertices;
  for (auto const& item : items) {
    sorted.clear();
    for (std::size_t j = 0; j < item.candidates.size(); ++j) {
      sorted.push_back({item.candidates[j].bytes, item.candidates[j].loss, 0, static_cast<std::uint32_t>(j)});
    }
    if (!std::is_sorted(sorted.begin(), sorted.end(), before)) std::sort(sorted.begin(), sorted.end(), before);
    std::size_t const begin = result.options.size();
    for (auto const& option : sorted) {
      if (option.bytes - sorted.front().bytes > slack) break;
      if (result.options.size() == begin || option.loss < result.options.back().loss) result.options.push_back(option);
    }
    find_hull(std::span(result.options).subspan(begin), vertices);
    result.first.push_back(result.options.size());
  }
  return result;
}

}  // namespace prismaquant::detail
