/// @file
/// Choosing the scale codes of 16 groups at once by their squared errors: the codes of `sweep_rule` and
/// `four_over_six_rule`, byte for byte.
///
/// 1. Every candidate's error is estimated in float32, with a multiplication in place of the division.
/// 2. Where the best is better than the second best by more than both can be wrong, it is the scalar codec's choice.
/// 3. Elsewhere (a group in some thousands; ties; scales out of the range of the estimates) the group's errors are
///    computed again as the scalar codec does, 16 codes at once.
#pragma once

#include "prismaquant/codec/kernels/sweep_estimate.hpp"
#include "prismaquant/codec/scale_rule_list.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// A lane of groups, element by element 16 floats apart.
template <std::size_t Group>
PRISMAQUANT_INLINE float const* lane_of(groups_by_element<Group> const& groups, int lane) {
  return reinterpret_cast<float const*>(&groups) + lane;
}

/// `sweep_rule::choose` for one group.
template <class Steps, class Element, std::size_t Group>
[[gnu::noinline]] std::int32_t sweep_exactly(float const* x, std::int32_t first, std::int32_t last,
                                             f32 global_scale) noexcept {
  double least = __builtin_inf();
  std::int32_t best = first;
  std::int32_t codes[16];
  for (int k = 0; k < 16; ++k) codes[k] = first + k < last ? first + k : last;
  double errors[16];
  exact_errors<Steps, Element, Group, false>(x, x, load<i32>(codes), global_scale, errors);
  for (int k = 0; k < 16; ++k) {
    if (errors[k] < least) {
      least = errors[k];
      best = codes[k];
    }
  }
  return best;
}

/// The same with importance; no code below `lowest` can be the best.
template <class Steps, class Element, std::size_t Group>
[[gnu::noinline]] std::int32_t sweep_exactly(float const* x, float const* h, std::int32_t first, std::int32_t last,
                                             std::int32_t lowest, f32 global_scale) noexcept {
  bool important = false;
  for (std::size_t e = 0; e < Group; ++e) important = important || h[16 * e] > 0.0f;
  if (!important) return sweep_exactly<Steps, Element, Group>(x, first, last, global_scale);
  double least = __builtin_inf();
  std::int32_t best = last;
  for (std::int32_t top = last; top >= lowest; top -= 16) {
    std::int32_t codes[16];
    for (int k = 0; k < 16; ++k) codes[k] = top - k > lowest ? top - k : lowest;
    double errors[16];
    exact_errors<Steps, Element, Group, true>(x, h, load<i32>(codes), global_scale, errors);
    for (int k = 0; k < 16; ++k) {
      if (errors[k] <= least) {
        least = errors[k];
        best = codes[k];
      }
    }
  }
  return best;
}

/// The groups of which the estimates leave the choice open.
template <class Steps, class Element, std::size_t Group, bool Weighted>
PRISMAQUANT_INLINE i32 settle(groups_by_element<Group> const& weights, groups_by_element<Group> const* importance,
                              i32 first, i32 last, f32 global_scale, choices const& found) {
  if (is_zero(found.uncertain)) return found.code;
  std::int32_t code[16], uncertain[16], from[16], to[16], lowest[16];
  store(code, found.code), store(uncertain, found.uncertain), store(lowest, found.lowest);
  store(from, first), store(to, last);
  for (int lane = 0; lane < 16; ++lane) {
    if (uncertain[lane] == 0) continue;
    float const* const x = lane_of(weights, lane);
    if constexpr (Weighted) {
      float const* const h = lane_of(*importance, lane);
      code[lane] = sweep_exactly<Steps, Element, Group>(x, h, from[lane], to[lane], lowest[lane], global_scale);
    } else {
      code[lane] = sweep_exactly<Steps, Element, Group>(x, from[lane], to[lane], global_scale);
    }
  }
  return load<i32>(code);
}

/// Scale codes of 16 groups, whose largest magnitudes are `amax`, by `sweep_rule` under E4M3 scales. `importance` is
/// not read unless `Weighted`.
template <class Element, bool Weighted>
[[gnu::noinline]] i32 sweep_e4m3(groups_by_element<16> const& weights, groups_by_element<16> const* importance,
                                 i32 amax, f32 global_scale) noexcept {
  static_assert(std::same_as<Element, e2m1>);  // what `estimate_e4m3` takes for granted
  i32 const k0 = e4m3_lanes::encode_magnitude(global_scale * (floats(amax) / splat(grid_of<Element>::largest)));
  i32 const first = max(k0 - splat(3), splat(1));
  i32 const last = min(max(k0 + splat(7), splat(15)), splat(126));
  // Zeros err nowhere: they get the lowest code. Their estimates, of some usual window, do not count.
  i32 const zero = less(amax, splat(1));
  i32 const usual = select(zero, splat(16), k0);
  bool const regular = is_zero(less(usual, splat(11)) | less(splat(119), usual));
  choices found;
  estimate_e4m3<Element, Weighted>(weights, importance, amax, select(zero, splat(13), first),
                                   select(zero, splat(23), last), global_scale, regular, found);
  found.code = select(zero, splat(1), found.code);
  found.uncertain = select(zero & e4m3_steps::safe_for(global_scale), splat(0), found.uncertain);
  return settle<e4m3_steps, Element, 16, Weighted>(weights, importance, first, last, global_scale, found);
}

/// Scale codes of 16 groups by `sweep_rule` under powers of two.
template <class Element, std::size_t Group, bool Weighted>
[[gnu::noinline]] i32 sweep_e8m0(groups_by_element<Group> const& weights, groups_by_element<Group> const* importance,
                                 i32 amax) noexcept {
  i32 const exponent = shift_right(amax, 23) - splat(Element::max_exponent);
  i32 const first = min(max(exponent, splat(1)), splat(254 - Element::max_exponent));
  i32 const last = min(max(exponent + splat(1), splat(1)), splat(254 - Element::max_exponent));
  choices found;
  estimate_e8m0<Element, Group, Weighted>(weights, importance, amax, first, last, found);
  i32 const zero = less(amax, splat(1));
  i32 of_zero = splat(127);
  if constexpr (Weighted) {  // a zero errs nowhere: the lowest code, unless nothing counts
    of_zero = select(less(largest_of(*importance), splat(1)), of_zero, splat(1));
  }
  found.code = select(zero, of_zero, found.code);
  found.uncertain = select(zero, splat(0), found.uncertain);
  return settle<e8m0_steps, Element, Group, Weighted>(weights, importance, first, last, splat(1.0f), found);
}

/// Scale codes of 16 groups by `four_over_six_rule`.
template <class Element, bool Weighted>
[[gnu::noinline]] i32 four_over_six(groups_by_element<16> const& weights, groups_by_element<16> const* importance,
                                    i32 amax, f32 global_scale) noexcept {
  auto const from_amax = [&](float largest) PRISMAQUANT_INLINE_LAMBDA {
    i32 const code = e4m3_lanes::encode_magnitude(global_scale * (floats(amax) / splat(largest)));
    return select(less(splat(0), code), code, splat(0x20));
  };
  i32 const six = from_amax(6.0f), four = from_amax(4.0f);
  bool const saturates = !is_zero(less(six, splat(8)) | less(splat(125), six));
  choices found;
  for (int r = 0; r < registers_per_lanes; ++r) {
    i32_register const a = part_of<i32_register>(six, r), b = part_of<i32_register>(four, r);
    e4m3_steps const steps(part_of<f32_register>(global_scale, r));
    scaled_groups<16, Weighted> const groups(weights, importance, part_of<i32_register>(amax, r), steps, r);
    two_best two(a);
    if (saturates) {
      two.offer(candidate_error<e4m3_steps, Element, true>(groups, steps, a), a);
      two.offer(candidate_error<e4m3_steps, Element, true>(groups, steps, b), b);
    } else {
      two.offer(candidate_error<e4m3_steps, Element, false>(groups, steps, a), a);
      two.offer(candidate_error<e4m3_steps, Element, false>(groups, steps, b), b);
    }
    i32_register same = ~(less(a, b) | less(b, a));
    if constexpr (Weighted) same = same | groups.unimportant;
    set_part(found.code, r, select(same, a, two.code));
    set_part(found.uncertain, r, ~(same | (groups.safe & two.certain(groups.norm))));
  }
  if (is_zero(found.uncertain)) return found.code;
  std::int32_t code[16], uncertain[16], sixes[16], fours[16];
  store(code, found.code), store(uncertain, found.uncertain), store(sixes, six), store(fours, four);
  for (int lane = 0; lane < 16; ++lane) {
    if (uncertain[lane] == 0) continue;
    float const* const x = lane_of(weights, lane);
    float const* const h = Weighted ? lane_of(*importance, lane) : x;
    std::int32_t codes[16] = {sixes[lane], fours[lane]};
    for (int k = 2; k < 16; ++k) codes[k] = codes[0];
    double errors[16];
    exact_errors<e4m3_steps, Element, 16, Weighted>(x, h, load<i32>(codes), global_scale, errors);
    code[lane] = errors[1] < errors[0] ? codes[1] : codes[0];
  }
  return load<i32>(code);
}

template <class Rule>
inline constexpr bool chooses_by_error = std::same_as<Rule, sweep_rule> || std::same_as<Rule, four_over_six_rule>;

/// Scale codes of 16 groups of `F` by `Rule`. `amax`: `largest_of(weights)`; `importance`: as many as the weights, or
/// null.
template <class F, class Rule, std::size_t Group>
PRISMAQUANT_INLINE i32 choose_by_error(groups_by_element<Group> const& weights, float const* importance, i32 amax,
                                       f32 global_scale) {
  using element = typename F::element;
  auto const choose = [&]<bool Weighted>(std::bool_constant<Weighted>, groups_by_element<Group> const* h)
                          PRISMAQUANT_INLINE_LAMBDA {
                            if constexpr (std::same_as<Rule, four_over_six_rule>) {
                              return four_over_six<element, Weighted>(weights, h, amax, global_scale);
                            } else if constexpr (std::same_as<typename F::scale, e4m3_scale>) {
                              return sweep_e4m3<element, Weighted>(weights, h, amax, global_scale);
                            } else {
                              return sweep_e8m0<element, Group, Weighted>(weights, h, amax);
                            }
                          };
  if (importance == nullptr) return choose(std::false_type{}, nullptr);
  auto const h = load_groups<input::float32, Group>(importance, 0);
  return choose(std::true_type{}, &h);
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
