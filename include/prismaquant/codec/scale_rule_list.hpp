/// @file
/// The one list of scale rules, with those that only some formats have.
#pragma once

#include <string_view>
#include <tuple>
#include <type_traits>

#include "prismaquant/codec/scale_rules.hpp"
#include "prismaquant/core/named_list.hpp"

namespace prismaquant {

namespace detail {
template <class Scale>
inline constexpr bool is_e8m0 = false;
template <int E, int M>
inline constexpr bool is_e8m0<e8m0_scale<E, M>> = true;
}  // namespace detail

/// NVFP4: the largest magnitude of a block becomes 6 or 4, whichever has the smaller squared error (6 on ties). Values
/// just below the largest one gain from 4, because the E2M1 grid has a gap of a third below 6. Source: "Four Over Six"
/// (arXiv 2512.02010), whose global scale leaves the same room: 256 * 1.5 <= 448.
struct four_over_six_rule {
  static constexpr std::string_view name = "four_over_six";
  static constexpr float largest_block_scale = 256.0f;
  template <format F>
  static constexpr bool applies =
      std::is_same_v<typename F::scale, e4m3_scale>&& std::is_same_v<typename F::element, e2m1>;

  template <format F, weight_type T>
  static constexpr std::uint8_t choose(matrix_view<T const> block, float global_scale) noexcept {
    return better<F>(block, global_scale, [&](float scale) { return rounding_error<F>(block, scale); });
  }
  template <format F, weight_type T>
  static constexpr std::uint8_t choose(matrix_view<T const> block, matrix_view<float const> importance,
                                       float global_scale) noexcept {
    return better<F>(block, global_scale,
                     [&](float scale) { return rounding_error<F>(block, importance, scale).total; });
  }

 private:
  template <format F, weight_type T, class Error>
  static constexpr std::uint8_t better(matrix_view<T const> block, float global_scale, Error&& error) noexcept {
    float const amax = block_amax(block);
    auto const six = F::scale::from_amax(amax, 6.0f, global_scale);
    auto const four = F::scale::from_amax(amax, 4.0f, global_scale);
    return error(F::scale::decode(four, global_scale)) < error(F::scale::decode(six, global_scale)) ? four : six;
  }
};

/// E8M0: floor(log2(amax)) - floor(log2(element_max)), the OCP MX rule.
struct floor_rule {
  static constexpr std::string_view name = "floor";
  static constexpr float largest_block_scale = 448.0f;
  template <format F>
  static constexpr bool applies = detail::is_e8m0<typename F::scale>;

  template <format F, weight_type T>
  static constexpr std::uint8_t choose(matrix_view<T const> block, float /*global_scale*/) noexcept {
    return F::scale::floor(block_amax(block));
  }
};

/// E8M0: the smallest power of two under which nothing saturates (NVIDIA's round-up, here of the exact quotient).
struct ceil_rule {
  static constexpr std::string_view name = "ceil";
  static constexpr float largest_block_scale = 448.0f;
  template <format F>
  static constexpr bool applies = detail::is_e8m0<typename F::scale>;

  template <format F, weight_type T>
  static constexpr std::uint8_t choose(matrix_view<T const> block, float /*global_scale*/) noexcept {
    return F::scale::ceil(block_amax(block), F::element::max_value);
  }
};

/// The scales (and zero points) that the output holds already: the caller's.
struct given_rule {
  static constexpr std::string_view name = "given";
  static constexpr float largest_block_scale = 448.0f;
  template <format F>
  static constexpr bool applies = !nested_format<F>;
};

using scale_rule_list = std::tuple<amax_rule, sweep_rule, four_over_six_rule, floor_rule, ceil_rule, given_rule>;

/// Calls `visitor(R{})` for the rule called `name`, if it applies to `F`; the amax rule for a sweep that would choose
/// the same.
/// @throws format_error if there is none of that name, or it does not apply.
template <format F, class Visitor>
void visit_scale_rule(std::string_view name, Visitor&& visitor) {
  visit_named<scale_rule_list>("scale rule", name, [&]<scale_rule R>(R rule) {
    if constexpr (std::is_same_v<R, sweep_rule> && !sweep_rule::swept<F>) {
      visitor(amax_rule{});
    } else if constexpr (R::template applies<F>) {
      visitor(rule);
    } else {
      std::string known;
      for_each_named<scale_rule_list>([&]<scale_rule K>(K) {
        if (K::template applies<F>) known += (known.empty() ? "" : ", ") + std::string(K::name);
      });
      throw format_error("scale rule '" + std::string(name) + "' is not for " + std::string(F::name) + "; it takes " +
                         known);
    }
  });
}

}  // namespace prismaquant
