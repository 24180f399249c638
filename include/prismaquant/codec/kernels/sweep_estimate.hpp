/// @file
/// Which scale codes of 16 groups have the smallest error, as far as float32 estimates can tell.
///
/// How wrong an estimate can be. Let e = 2^-24, |v| the (weighted) Euclidean norm over a group, d the differences
/// x - scale * value of the scalar codec (which adds their squares in float64: an error below 2^-48, neglected here),
/// d' those of the estimate, all in its unit, in which scales are exact. To first order, per element,
/// - the same value: x in that unit, the inverse and the quotient are rounded, and so is the scalar codec's scale:
///   3 e x + e scale * value <= 5 e x, since scale * value <= 2 x (0 would be nearer otherwise); the difference: e x;
/// - another value: the two quotients differ by at most 5 e x / scale, so that both lie that close to the midpoint of
///   the two values, and the larger of the two differences exceeds the other by at most 10 e x.
/// So |d' - d| <= 16 e |x|, but for signs, which do not matter. Squares, weights and sums pass at most 10 roundings
/// under E4M3 scales, 5 e |d'| <= 5 e |x| of the norm; 19 under powers of two, where nothing else is rounded but
/// differences far below a window. An estimated norm is within 21 e |x| of the true one; two codes are in order if
/// theirs are 42 e |x| apart; c = 48 e = 3 * 2^-20 is asked for. With E = |d'|^2, sqrt(E2) - sqrt(E1) > c |x| follows
/// from (E2 - E1)^2 > 2 c^2 |x|^2 (E1 + E2), which needs no root.
#pragma once

#include "prismaquant/codec/kernels/sweep_error.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// The best and the second best of the candidates so far, by estimated errors.
struct two_best {
  static constexpr float far = 0x1p60f;  ///< above every error in the range of the estimates
  f32_register best = all(far), second = all(far);
  i32_register code;

  PRISMAQUANT_INLINE explicit two_best(i32_register first) : code(first) {}

  PRISMAQUANT_INLINE void offer(f32_register error, i32_register candidate) {
    second = smaller(second, larger(error, best));
    code = select(less(error, best), candidate, code);
    best = smaller(error, best);
  }

  /// Lanes in which the order of the two is certain; `norm`: the squared norm of the group.
  PRISMAQUANT_INLINE i32_register certain(f32_register norm) const {
    constexpr float tolerance = 3 * 0x1p-20f;
    f32_register const apart = second - best;
    return less(all(2 * tolerance * tolerance) * norm * (best + second), apart * apart);
  }
};

/// One register of groups in the unit of the estimates.
template <std::size_t Group, bool Weighted>
struct scaled_groups {
  f32_register x[Group];  ///< magnitudes
  f32_register h[Group];  ///< importance over the power of two of the group's largest; 1 in groups that have none
  f32_register largest, norm;
  i32_register unimportant;  ///< groups without any importance
  i32_register safe;         ///< groups for which the bound holds: nothing overflows, nothing that counts underflows

  template <class Steps>
  PRISMAQUANT_INLINE scaled_groups(groups_by_element<Group> const& weights, groups_by_element<Group> const* importance,
                                   i32_register amax, Steps const& steps, int r) {
    if constexpr (Weighted) {
      i32_register top = all(0);
      PRISMAQUANT_UNROLL
      for (std::size_t e = 0; e < Group; ++e) {
        i32_register const magnitude = part_of<i32_register>(importance->x[e], r) & all(0x7fffffff);  // of -0 too
        h[e] = floats(magnitude);
        top = max(top, magnitude);
      }
      unimportant = less(top, all(1));
      i32_register const exponent = all(254 << 23) - (top & all(infinity_bits));
      f32_register const unit = floats(min(max(exponent, all(1 << 23)), all(254 << 23)));
      PRISMAQUANT_UNROLL
      for (std::size_t e = 0; e < Group; ++e) h[e] = select(unimportant, all(1.0f), h[e] * unit);
    }
    f32_register sum[2] = {all(0.0f), all(0.0f)};
    PRISMAQUANT_UNROLL
    for (std::size_t e = 0; e < Group; ++e) {
      x[e] = floats(part_of<i32_register>(weights.x[e], r) & all(0x7fffffff)) * steps.unit;
      sum[e % 2] = add_product(Weighted ? h[e] * x[e] : x[e], x[e], sum[e % 2]);
    }
    norm = sum[0] + sum[1];
    largest = floats(amax) * steps.unit;
    safe = less(all(0x1p-30f), largest) & less(largest, all(0x1p20f)) & steps.safe();
  }
};

template <std::size_t Group>
PRISMAQUANT_INLINE i32 largest_of(groups_by_element<Group> const& weights) {
  i32 amax[4] = {splat(0), splat(0), splat(0), splat(0)};
  PRISMAQUANT_UNROLL
  for (std::size_t e = 0; e < Group; ++e) amax[e % 4] = max(amax[e % 4], magnitude_bits(weights.x[e]));
  return max(max(amax[0], amax[1]), max(amax[2], amax[3]));
}

/// What is known of 16 groups after the estimates.
struct choices {
  i32 code;
  i32 uncertain;  ///< lanes whose code may not be the scalar codec's
  i32 lowest;     ///< with importance: no code below it can be the best
};

/// An upper bound of 1 / sqrt(v), at most 8 % above it, for v from 2^-126 on; some 2^63 below. The bits of a float are
/// a piecewise linear logarithm: halved and negated they are those of the inverse root, within 3.5 %.
PRISMAQUANT_INLINE f32_register above_inverse_root(f32_register v) {
  return floats(all(0x5f3759df) - shift_right(bits(v), 1)) * all(1.036f);
}

/// The least scale at which saturation alone does not yet cost more than the best error so far:
/// h (x - largest value * scale)^2 <= E for every element. Rounded down, E first raised by what it can be wrong.
template <class Element, std::size_t Group>
PRISMAQUANT_INLINE f32_register least_scale(scaled_groups<Group, true> const& groups, f32_register best) {
  f32_register const root = best * above_inverse_root(best) + groups.largest * all(0x1p-14f);
  f32_register beyond = all(0.0f);
  PRISMAQUANT_UNROLL
  for (std::size_t e = 0; e < Group; ++e) {
    beyond = larger(beyond, groups.x[e] - root * above_inverse_root(groups.h[e]));
  }
  return beyond * all(0.999f / grid_of<Element>::largest);
}

template <class Steps, class Element, bool Saturate, std::size_t Group, bool Weighted>
PRISMAQUANT_INLINE f32_register candidate_error(scaled_groups<Group, Weighted> const& groups, Steps const& steps,
                                                i32_register code) {
  f32_register const scale = steps.scale(code);
  return estimated_error<Element, Saturate, Weighted>(groups.x, groups.h, scale, steps.inverse(scale));
}

/// Goes on below code `first`, down to where saturation alone costs more than the best so far. Returns the lanes in
/// which that is reached, and the lowest codes tried.
template <class Steps, class Element, std::size_t Group>
PRISMAQUANT_INLINE i32_register descend(scaled_groups<Group, true> const& groups, Steps const& steps,
                                        i32_register first, two_best& found, i32_register& lowest) {
  lowest = first;
  f32_register const least = least_scale<Element>(groups, found.best);
  for (int j = 1;; ++j) {
    i32_register const code = first - all(j), at = max(code, all(1));
    i32_register open = less(all(0), code) & ~groups.unimportant & groups.safe & ~less(steps.scale(at), least);
    if (is_zero(open)) return all(-1);
    if (j == Steps::most_steps) return ~open;
    lowest = select(open, code, lowest);
    f32_register const error = candidate_error<Steps, Element, true>(groups, steps, at);
    found.offer(select(open, error, all(two_best::far)), code);
  }
}

/// Estimates for E4M3 scales first .. last. In `regular` windows these are first .. first + 10, all of them normal
/// numbers, of which the first three may saturate. The last three are twice the first three: every value of E2M1 up to
/// 3, doubled, is a value too. Where amax / scale < 3.5, half the scale is at least as good, element by element
/// (rounding ties to even picks the same value from both grids), and it has the smaller code.
template <class Element, bool Weighted>
PRISMAQUANT_INLINE void estimate_e4m3(groups_by_element<16> const& weights, groups_by_element<16> const* importance,
                                      i32 amax, i32 first_lanes, i32 last_lanes, f32 global_scale, bool regular,
                                      choices& out) {
  int const count = regular ? 11 : horizontal_max(last_lanes - first_lanes) + 1;
  for (int r = 0; r < registers_per_lanes; ++r) {
    e4m3_steps const steps(part_of<f32_register>(global_scale, r));
    scaled_groups<16, Weighted> const groups(weights, importance, part_of<i32_register>(amax, r), steps, r);
    i32_register const first = part_of<i32_register>(first_lanes, r), last = part_of<i32_register>(last_lanes, r);
    two_best found(first);
    i32_register code = first;
    if (regular) {
      // The inverse of the next scale is computed ahead: all of a candidate waits for it.
      f32_register scale = e4m3_steps::normal(code), inverse = all(1.0f) / scale;
      auto const offer = [&]<bool Saturate>(std::bool_constant<Saturate>,
                                            i32_register worse) PRISMAQUANT_INLINE_LAMBDA {
        f32_register const next = e4m3_steps::normal(code + all(1)), inverse_of_next = all(1.0f) / next;
        if (!is_zero(~worse)) {
          f32_register const error = estimated_error<Element, Saturate, Weighted>(groups.x, groups.h, scale, inverse);
          found.offer(select(worse, all(two_best::far), error), code);
        }
        code = code + all(1), scale = next, inverse = inverse_of_next;
      };
      for (int j = 0; j < 3; ++j) offer(std::true_type{}, all(0));
      for (int j = 3; j < 8; ++j) offer(std::false_type{}, all(0));
      for (int j = 8; j < 11; ++j) offer(std::false_type{}, less(groups.largest * inverse, all(3.49f)));
    } else {
      for (int j = 0; j < count; ++j, code = code + all(1)) {
        f32_register const error = candidate_error<e4m3_steps, Element, true>(groups, steps, code);
        found.offer(select(less(last, code), all(two_best::far), error), code);
      }
    }
    i32_register certain = groups.safe;
    if constexpr (Weighted) {
      i32_register lowest;
      certain = certain & descend<e4m3_steps, Element>(groups, steps, first, found, lowest);
      set_part(out.lowest, r, select(certain, lowest, all(1)));
    }
    set_part(out.code, r, found.code);
    set_part(out.uncertain, r, ~(certain & found.certain(groups.norm)));
  }
}

/// Estimates for the powers of two `first` and, where it differs, `last`, the next one. Floating-point elements are the
/// same under both but for those that saturate or are subnormal. All differences are exact here, so that where they are
/// equal one by one, the scalar codec finds a tie, and the lower code is its choice.
template <class Element, std::size_t Group, bool Weighted>
PRISMAQUANT_INLINE void estimate_e8m0(groups_by_element<Group> const& weights,
                                      groups_by_element<Group> const* importance, i32 amax, i32 first_lanes,
                                      i32 last_lanes, choices& out) {
  for (int r = 0; r < registers_per_lanes; ++r) {
    i32_register const first = part_of<i32_register>(first_lanes, r), last = part_of<i32_register>(last_lanes, r);
    e8m0_steps const steps(first);
    scaled_groups<Group, Weighted> const groups(weights, importance, part_of<i32_register>(amax, r), steps, r);
    f32_register low[2] = {all(0.0f), all(0.0f)}, high[2] = {all(0.0f), all(0.0f)};
    i32_register unequal = all(0);
    PRISMAQUANT_UNROLL
    for (std::size_t e = 0; e < Group; ++e) {
      f32_register const x = groups.x[e];
      f32_register const a = x - nearest<Element>(smaller(x, all(grid_of<Element>::largest)));
      f32_register const half = nearest<Element>(x * all(0.5f));
      f32_register const b = x - (half + half);
      unequal = unequal | (bits(a) ^ bits(b));
      low[e % 2] = add_product(Weighted ? groups.h[e] * a : a, a, low[e % 2]);
      high[e % 2] = add_product(Weighted ? groups.h[e] * b : b, b, high[e % 2]);
    }
    two_best found(first);
    found.offer(low[0] + low[1], first);
    i32_register const offered = less(first, last) & (less(all(0), unequal) | less(unequal, all(0)));
    found.offer(select(offered, high[0] + high[1], all(two_best::far)), last);
    i32_register certain = groups.safe;
    if constexpr (Weighted) {
      i32_register lowest;
      certain = certain & descend<e8m0_steps, Element>(groups, steps, first, found, lowest);
      set_part(out.lowest, r, select(certain, lowest, all(1)));
    }
    set_part(out.code, r, found.code);
    set_part(out.uncertain, r, ~(certain & found.certain(groups.norm)));
  }
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
