/// @file
/// Search for a choice within several limits, from the relaxed one, with a bound on what it did not look at.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "prismaquant/allocator/lagrangian.hpp"

namespace prismaquant::detail {

/// How far the search goes: states it holds at once, and states it makes in all.
struct search_effort {
  std::size_t width = std::size_t{1} << 14;
  std::size_t total = std::size_t{1} << 22;
};

/// The best choice found, if any, and what is known about all others.
struct beam_result {
  std::vector<std::size_t> chosen;  ///< empty: none was found
  double loss = std::numeric_limits<double>::infinity();
  double lower_bound = 0;
};

/// Searches the choices that differ from the relaxed one in few items.
///
/// The regret of an option is its reduced loss minus that of the relaxed option of its item: what taking it adds to the
/// bound. So a choice whose regrets sum to more than the gap cannot be better than the best one known. Items are
/// visited in order of their least regret; of each state only the changes within the gap are followed. When the next
/// item's least regret closes the gap, the best choice is optimal. Of states that use the same only the one with the
/// least loss is kept; where they are still too many, those with the largest bound are dropped, and the least bound
/// among them is what can be said in the end.
class beam_search {
 public:
  beam_search(limited_problem const& problem, priced_choice const& relaxed, search_effort effort)
      : problem_(problem), relaxed_(relaxed), effort_(effort), regret_(problem.loss.size()) {
    least_.assign(problem.size(), std::numeric_limits<double>::infinity());
    for (std::size_t i = 0; i < problem.size(); ++i) {
      double const base = relaxed.reduced(problem, relaxed.chosen[i]);
      for (std::size_t option = problem.first[i]; option < problem.first[i + 1]; ++option) {
        regret_[option] = std::max(0.0, relaxed.reduced(problem, option) - base);
        if (option != relaxed.chosen[i]) least_[i] = std::min(least_[i], regret_[option]);
      }
    }
  }

  beam_result run() {
    greedy();
    explore();
    result_.lower_bound = std::min(std::max(lower_, relaxed_.bound), result_.loss);
    return result_;
  }

 private:
  static constexpr std::uint32_t root = std::numeric_limits<std::uint32_t>::max();

  struct change {
    std::uint32_t before;  ///< an index into changes_, or root
    std::uint32_t option;
  };
  struct state {
    double regret;
    double loss;
    std::uint32_t last;  ///< its last change, or root
    std::size_t place;   ///< of its uses
  };

  bool fits(std::int64_t const* over) const {
    return std::all_of(over, over + problem_.limits(), [](std::int64_t value) { return value <= 0; });
  }
  bool improves(double regret) const { return relaxed_.bound + regret < result_.loss; }

  void accept(std::vector<std::size_t> const& chosen) {
    double loss = 0;
    for (std::size_t const option : chosen) loss += problem_.loss[option];
    if (loss >= result_.loss) return;
    result_.loss = loss;
    result_.chosen = chosen;
  }

  /// Repairs the relaxed choice by the changes with the least regret per excess that they remove, then takes whatever
  /// lowers the loss within the limits.
  void greedy() {
    auto chosen = relaxed_.chosen;
    auto over = relaxed_.over;
    auto const excess = [&](std::size_t item, std::size_t option) {
      double sum = 0;
      for (std::size_t k = 0; k < over.size(); ++k) {
        std::int64_t const value = over[k] + problem_.uses[k][option] - problem_.uses[k][chosen[item]];
        if (value > 0)
          sum += static_cast<double>(value) / static_cast<double>(std::max<std::int64_t>(1, problem_.limit[k]));
      }
      return sum;
    };
    auto const take = [&](std::size_t item, std::size_t option) {
      for (std::size_t k = 0; k < over.size(); ++k)
        over[k] += problem_.uses[k][option] - problem_.uses[k][chosen[item]];
      chosen[item] = option;
    };
    // `worth(item, option)` > 0: how good the change is. The best one is taken until there is none.
    auto const change_while = [&](auto const& worth) {
      for (std::size_t round = 0; round < 4 * problem_.size(); ++round) {
        double best = 0;
        std::size_t best_item = 0, best_option = 0;
        for (std::size_t i = 0; i < problem_.size(); ++i) {
          for (std::size_t option = problem_.first[i]; option < problem_.first[i + 1]; ++option) {
            if (option == chosen[i]) continue;
            if (double const value = worth(i, option); value > best) {
              best = value;
              best_item = i;
              best_option = option;
            }
          }
        }
        if (best == 0) return;
        take(best_item, best_option);
      }
    };
    change_while([&](std::size_t item, std::size_t option) {
      double const removed = excess(item, chosen[item]) - excess(item, option);
      return removed <= 0 ? 0 : removed / (std::max(0.0, regret_[option] - regret_[chosen[item]]) + 1e-300);
    });
    if (!fits(over.data())) return;
    change_while([&](std::size_t item, std::size_t option) {
      double const saved = problem_.loss[chosen[item]] - problem_.loss[option];
      return saved <= 0 || excess(item, option) > 0 ? 0 : saved;
    });
    accept(chosen);
  }

  void explore() {
    std::size_t const limits = problem_.limits();
    std::vector<std::size_t> order(problem_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return least_[a] < least_[b]; });
    std::vector<state> states = {{0, relaxed_.loss, root, 0}};
    std::vector<std::int64_t> uses = relaxed_.over;
    if (fits(uses.data())) accept(relaxed_.chosen);
    std::size_t made = 0;
    for (std::size_t const item : order) {
      if (!improves(least_[item])) break;
      if (made > effort_.total) {
        lower_ = std::min(lower_, relaxed_.bound + least_[item]);
        break;
      }
      std::size_t const old = states.size();
      std::size_t const from = relaxed_.chosen[item];
      for (std::size_t s = 0; s < old; ++s) {
        for (std::size_t option = problem_.first[item]; option < problem_.first[item + 1]; ++option) {
          if (option == from || !improves(states[s].regret + regret_[option])) continue;
          state next = states[s];
          next.regret += regret_[option];
          next.loss += problem_.loss[option] - problem_.loss[from];
          next.last = static_cast<std::uint32_t>(changes_.size());
          next.place = uses.size();
          for (std::size_t k = 0; k < limits; ++k) {
            uses.push_back(uses[states[s].place + k] + problem_.uses[k][option] - problem_.uses[k][from]);
          }
          changes_.push_back({states[s].last, static_cast<std::uint32_t>(option)});
          if (next.loss < result_.loss && fits(uses.data() + next.place)) accept(choice_of(next.last));
          states.push_back(next);
          ++made;
        }
      }
      reduce(states, uses);
    }
  }

  /// Drops what cannot improve, what another state with equal uses beats, and what there is no room for.
  void reduce(std::vector<state>& states, std::vector<std::int64_t>& uses) {
    std::size_t const limits = problem_.limits();
    std::erase_if(states, [&](state const& each) { return !improves(each.regret); });
    std::sort(states.begin(), states.end(), [&](state const& a, state const& b) {
      for (std::size_t k = 0; k < limits; ++k) {
        if (uses[a.place + k] != uses[b.place + k]) return uses[a.place + k] < uses[b.place + k];
      }
      return a.loss < b.loss;
    });
    auto const same = [&](state const& a, state const& b) {
      return std::equal(&uses[a.place], &uses[a.place] + limits, &uses[b.place]);
    };
    states.erase(std::unique(states.begin(), states.end(), same), states.end());
    if (states.size() > effort_.width) {
      auto const end = states.begin() + static_cast<std::ptrdiff_t>(effort_.width);
      std::nth_element(states.begin(), end, states.end(),
                       [](state const& a, state const& b) { return a.regret < b.regret; });
      for (auto dropped = end; dropped != states.end(); ++dropped) {
        lower_ = std::min(lower_, relaxed_.bound + dropped->regret);
      }
      states.erase(end, states.end());
    }
    std::vector<std::int64_t> kept;
    kept.reserve(states.size() * limits);
    for (auto& each : states) {
      kept.insert(kept.end(), &uses[each.place], &uses[each.place] + limits);
      each.place = kept.size() - limits;
    }
    uses.swap(kept);
  }

  std::vector<std::size_t> choice_of(std::uint32_t last) const {
    auto chosen = relaxed_.chosen;
    for (; last != root; last = changes_[last].before) {
      std::size_t const option = changes_[last].option;
      auto const item =
          std::upper_bound(problem_.first.begin(), problem_.first.end(), option) - problem_.first.begin() - 1;
      chosen[static_cast<std::size_t>(item)] = option;
    }
    return chosen;
  }

  limited_problem const& problem_;
  priced_choice const& relaxed_;
  search_effort effort_;
  std::vector<double> regret_;  ///< of each option
  std::vector<double> least_;   ///< of each item: the least regret of another option than the relaxed one
  std::vector<change> changes_;
  beam_result result_;
  double lower_ = std::numeric_limits<double>::infinity();
};

}  // namespace prismaquant::detail
