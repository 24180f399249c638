/// @file
/// Choosing the scales of a run of groups, sixteen groups at a time, by any scale rule.
#pragma once

#include "prismaquant/codec/kernels/rows.hpp"
#include "prismaquant/codec/kernels/scales.hpp"
#include "prismaquant/codec/kernels/sweep.hpp"
#include "prismaquant/codec/scale_rule_list.hpp"
#include "prismaquant/simd/transpose.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// Largest of `Part::of(weight)`, an integer, in each of 16 groups from weight `i` on.
template <std::size_t Group, input In, class Part>
PRISMAQUANT_INLINE i32 group_maxima(void const* weights, std::size_t i) {
  i32_register largest[groups_at_once];
  PRISMAQUANT_UNROLL
  for (std::size_t g = 0; g < groups_at_once; ++g) {
    i32 m = Part::of(load_weights<In>(weights, i + g * Group));
    for (std::size_t e = 16; e < Group; e += 16) m = max(m, Part::of(load_weights<In>(weights, i + g * Group + e)));
    largest[g] = fold_max(m);
  }
  return largest_lanes(largest);
}

/// Bits of |x|, of max(x, 0) and of max(-x, 0): positive floats compare as their bits.
struct magnitude_part {
  PRISMAQUANT_INLINE static i32 of(f32 x) { return magnitude_bits(x); }
};
struct positive_part {
  PRISMAQUANT_INLINE static i32 of(f32 x) { return max(bits(x), splat(0)); }
};
struct negative_part {
  PRISMAQUANT_INLINE static i32 of(f32 x) { return less(bits(x), splat(0)) & magnitude_bits(x); }
};

/// Largest magnitudes of 16 groups. 16-bit weights stay 16 bits wide, because magnitudes compare as integers in either
/// format: the two of a dword are compared in its upper half.
template <std::size_t Group, input In>
PRISMAQUANT_INLINE i32 group_amax(void const* weights, std::size_t i) {
  if constexpr (In == input::float32) {
    return group_maxima<Group, In, magnitude_part>(weights, i);
  } else {
    auto const* const p = static_cast<std::uint16_t const*>(weights) + i;
    auto const upper = []<class V>(V v) PRISMAQUANT_INLINE_LAMBDA {
      V const mask = splat_into<V>::value(0x7fff0000);
      return max(v & mask, (v << 16) & mask);
    };
    i32_register largest[groups_at_once];
    i32 amax;
    if constexpr (Group == 16 && sizeof(i32_register) == 64) {  // a register holds two groups: half the work
      PRISMAQUANT_UNROLL
      for (std::size_t g = 0; g < groups_at_once; g += 2) largest[g / 2] = upper(load<i32_register>(p + g * Group));
      amax = largest_halves(largest);
    } else if constexpr (Group == 16) {
      using group_lanes = typename lanes_of<std::int32_t, 8>::type;
      PRISMAQUANT_UNROLL
      for (std::size_t g = 0; g < groups_at_once; ++g) largest[g] = fold_max(upper(load<group_lanes>(p + g * Group)));
      amax = largest_lanes(largest);
    } else {
      PRISMAQUANT_UNROLL
      for (std::size_t g = 0; g < groups_at_once; ++g) {
        i32 m = upper(load<i32>(p + g * Group));
        for (std::size_t e = 32; e < Group; e += 32) m = max(m, upper(load<i32>(p + g * Group + e)));
        largest[g] = fold_max(m);
      }
      amax = largest_lanes(largest);
    }
    if constexpr (In == input::float16) return bits(widen_float16(shift_right(amax, 16)));
    return amax;
  }
}

/// Scale codes of 16 groups, and with zero points those; `amax`: their largest magnitudes.
struct choice {
  i32 scales, zero_points, amax;
};

/// `detail::choose_range`: the scale of the span from the smallest to the largest value, zero among them. The zero
/// point is the code of lowest + largest negative magnitude / scale.
template <class F, input In>
PRISMAQUANT_INLINE choice choose_range(void const* weights, std::size_t i) {
  using element = typename F::element;
  using scale = scale_lanes<typename F::scale>;
  constexpr std::size_t group = F::block_shape::columns;
  i32 const high = group_maxima<group, In, positive_part>(weights, i);
  i32 const low = group_maxima<group, In, negative_part>(weights, i);
  i32 const span = min(bits(floats(high) + floats(low)), splat(infinity_bits - 1));
  i32 const code = scale::from_amax(span, element::max_value - element::min_value, splat(1.0f));
  f32 const zero = splat(element::min_value) + floats(low) / scale::decode(code, splat(1.0f));
  return {code, element_lanes<element>::encode(zero), max(high, low)};
}

template <class F, class Rule, input In>
PRISMAQUANT_INLINE choice choose(void const* weights, float const* importance, std::size_t i, f32 global_scale) {
  using scale = scale_lanes<typename F::scale>;
  static_cast<void>(importance);
  if constexpr (has_zero_points<F>) {
    return choose_range<F, In>(weights, i);
  } else if constexpr (chooses_by_error<Rule>) {
    auto const groups = load_groups<In, F::block_shape::columns>(weights, i);
    i32 const amax = largest_of(groups);
    float const* const h = importance != nullptr ? importance + i : nullptr;
    return {choose_by_error<F, Rule>(groups, h, amax, global_scale), splat(0), amax};
  } else {
    i32 const amax = group_amax<F::block_shape::columns, In>(weights, i);
    constexpr float largest = full_scale<typename F::element>;
    if constexpr (std::same_as<Rule, amax_rule>) return {scale::from_amax(amax, largest, global_scale), splat(0), amax};
    if constexpr (std::same_as<Rule, floor_rule>) return {scale::floor(amax), splat(0), amax};
    if constexpr (std::same_as<Rule, ceil_rule>) return {scale::ceil(amax, F::element::max_value), splat(0), amax};
  }
}

/// Codes of 16 groups from weight `i` on to `scales` and `zero_points`. Returns their largest magnitudes.
template <class F, class Rule, input In>
PRISMAQUANT_INLINE i32 choose_chunk(void const* weights, float const* importance, std::size_t i, float global_scale,
                                    void* scales, std::uint8_t* zero_points) noexcept {
  prefetch_half<groups_at_once * F::block_shape::columns * input_bytes<In>, 0>(weights, i * input_bytes<In>);
  choice const c = choose<F, Rule, In>(weights, importance, i, splat(global_scale));
  store_codes<typename F::scale::code_type>(scales, 0, c.scales);
  if constexpr (has_zero_points<F>) store_bytes(zero_points, c.zero_points);
  return c.amax;
}

/// The same out of line: for what is large or rare.
template <class F, class Rule, input In>
[[gnu::noinline]] i32 choose_chunk_call(void const* weights, float const* importance, std::size_t i, float global_scale,
                                        void* scales, std::uint8_t* zero_points) noexcept {
  return choose_chunk<F, Rule, In>(weights, importance, i, global_scale, scales, zero_points);
}

template <class F, class Rule, input In>
std::uint32_t choose_scales(void const* weights, float const* importance, std::size_t count, void* scales,
                            std::uint8_t* zero_points, float global_scale) noexcept {
  using code = typename F::scale::code_type;
  constexpr std::size_t group = F::block_shape::columns, chunk = groups_at_once * group;
  constexpr bool by_error = chooses_by_error<Rule>;
  using rest_of_importance = float[by_error ? chunk : 1];
  auto* const codes = static_cast<code*>(scales);
  i32 largest = splat(0);
  for_each_chunk<chunk, In>(
      weights, count,
      [&](void const* from, std::size_t i) PRISMAQUANT_INLINE_LAMBDA {
        constexpr bool is_small = group * 64 / register_bytes <= 32 && !by_error;
        constexpr auto* choose_next = is_small ? &choose_chunk<F, Rule, In> : &choose_chunk_call<F, Rule, In>;
        largest =
            max(largest, choose_next(from, importance, i, global_scale, codes + i / group, zero_points + i / group));
      },
      [&](void const* from, std::size_t i, std::size_t n) PRISMAQUANT_INLINE_LAMBDA {
        code rest[groups_at_once];
        std::uint8_t rest_zero_points[groups_at_once];
        rest_of_importance rest_importance = {};
        if constexpr (by_error) {
          if (importance != nullptr) __builtin_memcpy(rest_importance, importance + i, n * sizeof(float));
        }
        float const* const h = importance != nullptr ? rest_importance : nullptr;
        largest = max(largest, choose_chunk_call<F, Rule, In>(from, h, 0, global_scale, rest, rest_zero_points));
        __builtin_memcpy(codes + i / group, rest, n / group * sizeof(code));
        if constexpr (has_zero_points<F>) __builtin_memcpy(zero_points + i / group, rest_zero_points, n / group);
      });
  return static_cast<std::uint32_t>(horizontal_max(largest));
}

/// Largest magnitude of a run; four accumulators, because one maximum waits for the last.
template <input In>
std::uint32_t largest(void const* weights, std::size_t count, std::size_t ahead) noexcept {
  i32 m[4] = {splat(0), splat(0), splat(0), splat(0)};
  auto const take = [&](void const* from, std::size_t i) PRISMAQUANT_INLINE_LAMBDA {
    PRISMAQUANT_UNROLL
    for (int k = 0; k < 4; ++k) {
      m[k] = max(m[k], magnitude_bits(load_weights<In>(from, i + 16 * static_cast<std::size_t>(k))));
    }
  };
  for_each_chunk<64, In>(
      weights, count,
      [&](void const* from, std::size_t i) PRISMAQUANT_INLINE_LAMBDA {
        prefetch(from, i * input_bytes<In> + ahead);
        if constexpr (input_bytes<In> == 4) prefetch(from, i * input_bytes<In> + ahead + 128);
        take(from, i);
      },
      [&](void const* from, std::size_t, std::size_t) PRISMAQUANT_INLINE_LAMBDA { take(from, 0); });
  return static_cast<std::uint32_t>(horizontal_max(max(max(m[0], m[1]), max(m[2], m[3]))));
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
