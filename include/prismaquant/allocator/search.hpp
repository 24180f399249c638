/// @file
/// The exact part: list dynamic programming over the few items that can still be worth changing.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "prismaquant/allocator/proof.hpp"

namespace prismaquant::detail {

struct search_result {
  std::vector<std::uint32_t> chosen;  ///< per item an index into scaled_problem::options
  std::int64_t cost;
  std::int64_t lower_bound;
  std::size_t states;
};

/// Starts from the relaxed choice, which fits, and changes items in order of their least regret.
///
/// A state that is heavier than another and costs no less is dropped. So is one that cannot lead to anything better
/// than the best choice known: it is worth keeping only if one more change helps, and that adds at least the least
/// regret of the next item. When this regret alone reaches the gap, the best choice known is optimal.
class core_search {
 public:
  /// `change_limit` bounds the memory. Rather than remember more changes (8 bytes each) the search stops; rather than
  /// hold a list of more than an eighth of that (24 bytes each, three lists) it goes on with a short one. Both leave
  /// the lower bound below the cost, unless the best choice turns out to reach it.
  core_search(scaled_problem const& problem, relaxation const& relaxed, std::size_t change_limit)
      : problem_(problem),
        relaxed_(relaxed),
        proof_(problem, relaxed),
        change_limit_(std::min<std::size_t>(change_limit, state::none)),
        list_limit_(change_limit_ / 8) {}

  search_result run() {
    auto core = nearest_items();
    auto const nearest = std::min(core.size(), greedy_items);
    improve(std::span(core).first(nearest));
    reduce(core);
    improve(std::span(core).subspan(std::min(core.size(), nearest)));
    reduce(core);
    states_.assign(1, {.over = relaxed_.over, .cost = 0});
    for (std::size_t k = 0; k < core.size() && !states_.empty(); ++k) {
      wide const regret = relaxed_.regret[core[k]];
      // Each choice not looked at yet changes this item or one with more regret.
      if (proof_.pointless(regret) || !has_room(core[k])) {
        proof_.skip(regret);
        break;
      }
      thin(core[k]);
      expand(core[k], k + 1 < core.size() ? relaxed_.regret[core[k + 1]] : unreachable);
    }
    return {chosen(), proof_.cost(), proof_.lower_bound(), longest_};
  }

 private:
  static constexpr std::size_t greedy_items = 256;

  /// What leads to a state: the change before (an index into changes_) and the option changed to.
  struct change {
    std::uint32_t parent;
    std::uint32_t option;
  };

  std::size_t count(std::uint32_t item) const { return problem_.first[item + 1] - problem_.first[item]; }

  bool nearer(std::uint32_t a, std::uint32_t b) const {
    return std::tie(relaxed_.regret[a], a) < std::tie(relaxed_.regret[b], b);
  }

  /// All items that have a choice, the nearest ones first and in order.
  std::vector<std::uint32_t> nearest_items() const {
    std::vector<std::uint32_t> items;
    for (std::size_t i = 0; i < problem_.size(); ++i) {
      if (auto const item = static_cast<std::uint32_t>(i); count(item) > 1) items.push_back(item);
    }
    auto const less = [this](std::uint32_t a, std::uint32_t b) { return nearer(a, b); };
    auto const middle = items.begin() + static_cast<std::ptrdiff_t>(std::min(items.size(), greedy_items));
    if (middle != items.end()) std::nth_element(items.begin(), middle, items.end(), less);
    std::sort(items.begin(), middle, less);
    return items;
  }

  /// `s` with another option of an item that it has not changed yet.
  state changed(state const& s, std::uint32_t item, std::size_t option) const {
    auto const& from = problem_.options[relaxed_.chosen[item]];
    auto const& to = problem_.options[option];
    return {s.over + to.weight - from.weight, s.cost + to.cost - from.cost, s.parent,
            static_cast<std::uint32_t>(option)};
  }

  state remembered(state const& s) {
    changes_.push_back({s.parent, s.option});
    return {s.over, s.cost, static_cast<std::uint32_t>(changes_.size() - 1), state::none};
  }

  /// Spends what the best choice leaves of the slack: each item in turn takes its least cost that still fits. The
  /// closer this comes to the bound, the fewer items are in the core. No item may be given twice.
  void improve(std::span<std::uint32_t const> items) {
    for (std::uint32_t const item : items) {
      auto const before = proof_.best();
      for (std::size_t k = problem_.first[item]; k < problem_.first[item + 1]; ++k) {
        proof_.offer(changed(before, item, k));
      }
      if (proof_.best().option != state::none) proof_.rename_best(remembered(proof_.best()));
    }
  }

  /// Keeps the items that the gap does not rule out, in order.
  ///
  /// The changes that are left move the weight in steps of their common divisor. Where they agree in one, as those of
  /// equal layers do, a part of the slack is stranded, and its price narrows the gap, which may rule out more changes.
  void reduce(std::vector<std::uint32_t>& items) {
    for (bool again = true; again;) {
      std::erase_if(items, [this](std::uint32_t i) { return ruled_out(relaxed_.regret[i]); });
      std::int64_t divisor = 0;
      for (std::uint32_t const item : items) {
        auto const& from = problem_.options[relaxed_.chosen[item]];
        for (std::size_t k = problem_.first[item]; k < problem_.first[item + 1] && divisor != 1; ++k) {
          auto const& to = problem_.options[k];
          if (!ruled_out(regret_of(relaxed_.price, from, to))) divisor = std::gcd(divisor, to.weight - from.weight);
        }
      }
      std::int64_t const stranded = divisor > 0 ? -relaxed_.over % divisor : 0;
      again = stranded > proof_.stranded();
      proof_.strand(stranded);
    }
    std::sort(items.begin(), items.end(), [this](std::uint32_t a, std::uint32_t b) { return nearer(a, b); });
  }

  bool ruled_out(wide regret) {
    bool const result = proof_.pointless(regret);
    if (result) proof_.skip(regret);
    return result;
  }

  /// Whether the changes of an item are within the limit, even if none of them is dropped.
  bool has_room(std::uint32_t item) const {
    return states_.size() <= (change_limit_ - std::min(changes_.size(), change_limit_)) / count(item);
  }

  /// Shortens a list that this item would make too long to the states that are nearest to a perfect choice, and keeps
  /// lists short from then on. They may still lead to a choice that reaches the bound.
  void thin(std::uint32_t item) {
    if (states_.size() <= list_limit_ / count(item)) return;
    list_limit_ = change_limit_ / 1024;
    proof_.settle();
    auto const keep = static_cast<std::ptrdiff_t>(std::min(states_.size(), 1 + list_limit_ / count(item)));
    auto const distance = [this](state const& s) {
      return proof_.regret(s) + relaxed_.price.numerator * (s.over > 0 ? s.over : -s.over);
    };
    std::nth_element(states_.begin(), states_.begin() + keep - 1, states_.end(), [&](state const& a, state const& b) {
      return std::pair(distance(a), a.over) < std::pair(distance(b), b.over);
    });
    for (auto s = states_.begin() + keep; s != states_.end(); ++s) {
      proof_.skip(proof_.regret(*s) + relaxed_.regret[item]);
    }
    states_.erase(states_.begin() + keep, states_.end());
    std::sort(states_.begin(), states_.end(), [](state const& a, state const& b) { return a.over < b.over; });
  }

  /// Adds all changes of one item to all states; `next_regret` is the least that any change after this one adds.
  void expand(std::uint32_t item, wide next_regret) {
    merged_ = states_;
    auto const& from = problem_.options[relaxed_.chosen[item]];
    for (std::size_t k = problem_.first[item]; k < problem_.first[item + 1]; ++k) {
      if (k == relaxed_.chosen[item]) continue;
      if (!ruled_out(regret_of(relaxed_.price, from, problem_.options[k]))) merge_changed(item, k);
    }
    longest_ = std::max(longest_, merged_.size());
    states_.clear();
    for (auto const& s : merged_) {
      if (ruled_out(proof_.regret(s) + next_regret)) continue;
      states_.push_back(s.option == state::none ? s : remembered(s));
    }
  }

  /// Merges the states with option `k` into merged_. Both lists ascend in weight; kept is what costs strictly less than
  /// all that is lighter.
  void merge_changed(std::uint32_t item, std::size_t k) {
    scratch_.clear();
    auto const keep = [this](state const& s) {
      if (scratch_.empty() || s.cost < scratch_.back().cost) scratch_.push_back(s);
    };
    auto old = merged_.begin();
    for (auto const& unchanged : states_) {
      auto const s = changed(unchanged, item, k);
      if (ruled_out(proof_.regret(s))) continue;
      proof_.offer(s);
      while (old != merged_.end() && std::tie(old->over, old->cost) <= std::tie(s.over, s.cost)) keep(*old++);
      keep(s);
    }
    while (old != merged_.end()) keep(*old++);
    merged_.swap(scratch_);
  }

  /// The best choice known: the relaxed one with its changes.
  std::vector<std::uint32_t> chosen() const {
    auto result = relaxed_.chosen;
    auto const apply = [&](std::uint32_t option) {
      auto const next_item = std::upper_bound(problem_.first.begin(), problem_.first.end(), std::size_t{option});
      result[static_cast<std::size_t>(next_item - problem_.first.begin()) - 1] = option;
    };
    if (proof_.best().option != state::none) apply(proof_.best().option);
    for (auto c = proof_.best().parent; c != state::none; c = changes_[c].parent) apply(changes_[c].option);
    return result;
  }

  scaled_problem const& problem_;
  relaxation const& relaxed_;
  proof proof_;
  std::size_t change_limit_;
  std::size_t list_limit_;
  std::vector<state> states_;
  std::vector<state> merged_;
  std::vector<state> scratch_;
  std::vector<change> changes_;
  std::size_t longest_ = 1;
};

}  // namespace prismaquant::detail
