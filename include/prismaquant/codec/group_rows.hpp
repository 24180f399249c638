/// @file
/// Formats with groups along a row, by kernels: a row in rounds that stay in the first-level cache.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "prismaquant/codec/quantized.hpp"
#include "prismaquant/codec/rows.hpp"
#include "prismaquant/core/executor.hpp"
#include "prismaquant/core/fp_environment.hpp"

namespace prismaquant::detail {

/// Weights of a round: about 4 KiB, and whole calls for the kernels, which take 16 groups at a time.
template <class F, class T>
inline constexpr std::size_t round_elements = std::max<std::size_t>(4096 / sizeof(T), 16 * F::block_shape::columns);

/// Chooses scales by `Rule` (or takes those that are there) and encodes, a round at a time.
template <class F, class Rule, class T>
class round_encoder {
 public:
  using word = typename F::layout::word;
  using scale_code = typename F::scale::code_type;

  explicit round_encoder(float global_scale) : global_scale_(global_scale) {}

  static bool exists() {
    if constexpr (chooses<F, Rule>) {
      if (scale_chooser<F, Rule, T>() == nullptr) return false;
    }
    return groups_encoder<F, T>() != nullptr;
  }

  /// False if a weight is not finite; codes and scales are then unspecified.
  bool encode(T const* weights, float const* importance, std::size_t count, scale_code* scales,
              std::uint8_t* zero_points, word* codes, bool stream) const {
    std::uint32_t amax;
    if constexpr (chooses<F, Rule>) {
      amax = choose_(weights, importance, count, scales, zero_points, global_scale_);
    } else {
      amax = largest_(weights, count, 0);
    }
    auto const magnitude = std::bit_cast<float>(amax);
    if (!is_finite(magnitude)) return false;
    encode_(weights, count, magnitude, scales, zero_points, global_scale_, codes, stream);
    return true;
  }

 private:
  static choose_scales_kernel* chooser() {
    if constexpr (chooses<F, Rule>) {
      return scale_chooser<F, Rule, T>();
    } else {
      return nullptr;
    }
  }

  float global_scale_;
  choose_scales_kernel* choose_ = chooser();
  largest_kernel* largest_ = largest_finder<T>();
  encode_groups_kernel* encode_ = groups_encoder<F, T>();
};

/// Zero points of block row `i` between the packed words of a matrix and a byte each.
template <class View>
void get_zero_points(View const& q, std::size_t i, std::vector<std::uint8_t>& bytes) {
  for (std::size_t j = 0; j < bytes.size(); ++j) bytes[j] = packed_zero_points::get(q.extra, i, j);
}
template <class View>
void put_zero_points(View const& q, std::size_t i, std::vector<std::uint8_t> const& bytes) {
  for (std::size_t j = 0; j < bytes.size(); ++j) packed_zero_points::put(q.extra, i, j, bytes[j]);
}

/// Rows [begin, end). False if a weight is not finite.
template <format F, class Rule, weight_type T>
bool encode_group_rows(matrix_view<T const> weights, matrix_view<float const> importance, quantized_view<F> const& out,
                       std::size_t begin, std::size_t end) {
  fp_environment_guard const guard;
  round_encoder<F, Rule, T> const encoder(out.global_scale);
  bool const stream = is_larger_than_caches(out.codes);
  contiguous_rows<T> source(weights);
  contiguous_rows<float> importances(importance);
  std::vector<std::uint8_t> zero_points(has_zero_points<F> ? out.scales.columns : 0);
  constexpr std::size_t step = round_elements<F, T>, group = F::block_shape::columns;
  for (std::size_t r = begin; r < end; ++r) {
    T const* const row = source.row(r);
    float const* const importance_row = importances.row(r);
    if constexpr (has_zero_points<F> && std::same_as<Rule, given_rule>) get_zero_points(out, r, zero_points);
    for (std::size_t c = 0; c < weights.columns; c += step) {
      std::size_t const count = std::min(step, weights.columns - c);
      if (!encoder.encode(row + c, importance_row != nullptr ? importance_row + c : nullptr, count,
                          &out.scales(r, c / group), zero_points.data() + (has_zero_points<F> ? c / group : 0),
                          &out.codes(r, F::layout::words(c)), stream)) {
        return false;
      }
    }
    if constexpr (has_zero_points<F> && !std::same_as<Rule, given_rule>) put_zero_points(out, r, zero_points);
  }
  return true;
}

/// The decoded values of rows [begin, end) as encoding would make them, to `target`, without storing codes.
template <format F, class Rule, weight_type T, class Target>
bool roundtrip_group_rows(matrix_view<T const> weights, matrix_view<float const> importance, float global_scale,
                          std::size_t begin, std::size_t end, Target& target) {
  fp_environment_guard const guard;
  using value = typename Target::value_type;
  constexpr std::size_t step = round_elements<F, T>, group = F::block_shape::columns;
  static_assert(step <= Target::most);
  round_encoder<F, Rule, T> const encoder(global_scale);
  auto* const decode = groups_decoder<F, value>();
  contiguous_rows<T> source(weights);
  contiguous_rows<float> importances(importance);
  typename F::layout::word codes[F::layout::words(step)];
  typename F::scale::code_type scales[step / group];
  std::uint8_t zero_points[step / group] = {};
  for (std::size_t r = begin; r < end; ++r) {
    T const* const row = source.row(r);
    float const* const importance_row = importances.row(r);
    for (std::size_t c = 0; c < weights.columns; c += step) {
      std::size_t const count = std::min(step, weights.columns - c);
      if (!encoder.encode(row + c, importance_row != nullptr ? importance_row + c : nullptr, count, scales, zero_points,
                          codes, false)) {
        return false;
      }
      decode(codes, scales, zero_points, count, global_scale, target.place(r, c), target.stream());
      target.done(r, c, count, row + c);
    }
  }
  return true;
}

/// Decodes rows [begin, end) to `target`, which compares them with `weights` if it compares.
template <format F, class T, class Target>
void decode_group_rows(const_quantized_view<F> const& q, contiguous_rows<T>& weights, std::size_t begin,
                       std::size_t end, Target& target) {
  fp_environment_guard const guard;
  constexpr std::size_t group = F::block_shape::columns, step = Target::most / group * group;
  auto* const decode = groups_decoder<F, typename Target::value_type>();
  std::vector<std::uint8_t> zero_points(has_zero_points<F> ? q.scales.columns : 0);
  for (std::size_t r = begin; r < end; ++r) {
    T const* const row = weights.row(r);
    if constexpr (has_zero_points<F>) get_zero_points(q, r, zero_points);
    for (std::size_t c = 0; c < q.columns; c += step) {
      std::size_t const count = std::min(step, q.columns - c);
      decode(&q.codes(r, F::layout::words(c)), &q.scales(r, c / group),
             zero_points.data() + (has_zero_points<F> ? c / group : 0), count, q.global_scale, target.place(r, c),
             target.stream());
      target.done(r, c, count, row != nullptr ? row + c : nullptr);
    }
  }
}

}  // namespace prismaquant::detail
