/// @file
/// Which kernel serves a format: from the table of the linked library, else the one compiled here. Null where there is
/// none: the scalar codec serves every format.
#pragma once

#include <concepts>

#include "prismaquant/codec/scale_rules.hpp"
#include "prismaquant/formats/bf16.hpp"
#include "prismaquant/formats/fp8.hpp"
#include "prismaquant/formats/mxfp4.hpp"
#include "prismaquant/formats/mxfp8.hpp"
#include "prismaquant/formats/nvfp4.hpp"

#if defined(PRISMAQUANT_KERNEL_LIBRARY)  // defined by the CMake target prismaquant::kernels
#include "prismaquant/codec/kernels/library.hpp"
#else
#include "prismaquant/codec/kernels/decode.hpp"
#include "prismaquant/codec/kernels/encode_groups.hpp"
#include "prismaquant/codec/kernels/encode_scaled.hpp"
#include "prismaquant/codec/kernels/table.hpp"
#endif

namespace prismaquant::detail {

/// Formats that share the kernels of E4M3 elements under one bfloat16 scale, whatever the block.
template <class F>
inline constexpr bool is_fp8_e4m3 =
    std::same_as<typename F::element, e4m3>&& std::same_as<typename F::scale, bf16_scale>&&
        std::same_as<typename F::layout, plain_words<std::uint8_t>>&& std::same_as<typename F::extra, no_extra> &&
    !F::has_global_scale;

/// Formats with kernels for groups along a row, one scale byte each.
template <class F>
inline constexpr bool has_group_kernels =
    std::same_as<F, nvfp4> || std::same_as<F, mxfp4> || std::same_as<F, mxfp8_e4m3>;

/// Formats with kernels for runs of elements under one scale, or none.
template <class F>
inline constexpr bool has_scaled_kernels = is_fp8_e4m3<F> || std::same_as<F, bf16>;

/// Whether `Rule` gives a block of a format with scaled kernels the scale of its largest magnitude: all that those do.
template <class F, class Rule>
inline constexpr bool scaled_by_amax = std::same_as<Rule, amax_rule> ||
                                       (std::same_as<Rule, sweep_rule> && !sweep_rule::swept<F>);

/// Whether kernels may be asked to encode. Any other format or rule is left to the scalar codec.
template <class F, class Rule>
inline constexpr bool may_encode = has_group_kernels<F> || (has_scaled_kernels<F> && scaled_by_amax<F, Rule>);

/// Whether kernels may be asked to decode: they write float32 and bfloat16.
template <class F, class Out>
inline constexpr bool may_decode = (has_group_kernels<F> || has_scaled_kernels<F>)&&(std::same_as<Out, float> ||
                                                                                     std::same_as<Out, bfloat16>);

/// float32, bfloat16, float16 as 0, 1, 2: the order of `kernel_table`.
template <class T>
inline constexpr int type_index = std::same_as<T, float>      ? 0
                                  : std::same_as<T, bfloat16> ? 1
                                                              : 2;

#if defined(PRISMAQUANT_KERNEL_LIBRARY)

template <class F, class Rule, weight_type T>
encode_groups_kernel* groups_encoder() {
  kernel_table const& t = active_kernels();
  constexpr int type = type_index<T>;
  constexpr bool amax = std::same_as<Rule, amax_rule>;
  if constexpr (std::same_as<F, nvfp4> && amax) return t.nvfp4_amax[type];
  if constexpr (std::same_as<F, nvfp4> && std::same_as<Rule, sweep_rule>) return t.nvfp4_sweep[type];
  if constexpr (std::same_as<F, mxfp4> && amax) return t.mxfp4_amax[type];
  if constexpr (std::same_as<F, mxfp8_e4m3> && amax) return t.mxfp8_e4m3_amax[type];
  return nullptr;
}

template <class F, weight_type T>
encode_scaled_kernel* scaled_encoder() {
  if constexpr (is_fp8_e4m3<F>) return active_kernels().fp8_e4m3[type_index<T>];
  if constexpr (std::same_as<F, bf16>) return active_kernels().bf16[type_index<T>];
  return nullptr;
}

template <weight_type T>
largest_kernel* largest_finder() {
  return active_kernels().largest[type_index<T>];
}

template <class F, class Out>
decode_groups_kernel* groups_decoder() {
  kernel_table const& t = active_kernels();
  if constexpr (std::same_as<F, nvfp4>) return t.nvfp4_decode[type_index<Out>];
  if constexpr (std::same_as<F, mxfp4>) return t.mxfp4_decode[type_index<Out>];
  if constexpr (std::same_as<F, mxfp8_e4m3>) return t.mxfp8_e4m3_decode[type_index<Out>];
  return nullptr;
}

template <class F, class Out>
decode_scaled_kernel* scaled_decoder() {
  if constexpr (is_fp8_e4m3<F>) return active_kernels().fp8_e4m3_decode[type_index<Out>];
  if constexpr (std::same_as<F, bf16>) return active_kernels().bf16_decode[type_index<Out>];
  return nullptr;
}

#elif defined(PRISMAQUANT_HAS_VECTORS)

namespace target = PRISMAQUANT_TARGET;

template <class F, class Rule, weight_type T>
encode_groups_kernel* groups_encoder() {
  constexpr auto type = static_cast<target::input>(type_index<T>);
  constexpr bool amax = std::same_as<Rule, amax_rule>;
  using target::e2m1_lanes, target::e4m3_lanes, target::e8m0_lanes;
  if constexpr (std::same_as<F, nvfp4> && amax) return &target::encode_groups<target::nvfp4_scale, e2m1_lanes, type>;
  if constexpr (std::same_as<F, mxfp4> && amax) return &target::encode_groups<e8m0_lanes<e2m1_lanes>, e2m1_lanes, type>;
  if constexpr (std::same_as<F, mxfp8_e4m3> && amax)
    return &target::encode_groups<e8m0_lanes<e4m3_lanes>, e4m3_lanes, type>;
  return nullptr;
}

template <class F, weight_type T>
encode_scaled_kernel* scaled_encoder() {
  constexpr auto type = static_cast<target::input>(type_index<T>);
  if constexpr (is_fp8_e4m3<F>) return &target::encode_scaled<target::e4m3_lanes, type>;
  if constexpr (std::same_as<F, bf16>) return &target::encode_bf16<type>;
  return nullptr;
}

template <weight_type T>
largest_kernel* largest_finder() {
  return &target::largest<static_cast<target::input>(type_index<T>)>;
}

template <class F, class Out>
decode_groups_kernel* groups_decoder() {
  constexpr auto type = static_cast<target::output>(type_index<Out>);
  using target::e2m1_lanes, target::e4m3_lanes, target::e8m0_lanes;
  if constexpr (std::same_as<F, nvfp4>) return &target::decode_groups<target::nvfp4_scale, e2m1_lanes, type>;
  if constexpr (std::same_as<F, mxfp4>) return &target::decode_groups<e8m0_lanes<e2m1_lanes>, e2m1_lanes, type>;
  if constexpr (std::same_as<F, mxfp8_e4m3>) return &target::decode_groups<e8m0_lanes<e4m3_lanes>, e4m3_lanes, type>;
  return nullptr;
}

template <class F, class Out>
decode_scaled_kernel* scaled_decoder() {
  constexpr auto type = static_cast<target::output>(type_index<Out>);
  if constexpr (is_fp8_e4m3<F>) return &target::decode_scaled<target::e4m3_lanes, type>;
  if constexpr (std::same_as<F, bf16>) return &target::decode_bf16<type>;
  return nullptr;
}

#else

template <class F, class Rule, weight_type T>
encode_groups_kernel* groups_encoder() {
  return nullptr;
}
template <class F, weight_type T>
encode_scaled_kernel* scaled_encoder() {
  return nullptr;
}
template <weight_type T>
largest_kernel* largest_finder() {
  return nullptr;
}
template <class F, class Out>
decode_groups_kernel* groups_decoder() {
  return nullptr;
}
template <class F, class Out>
decode_scaled_kernel* scaled_decoder() {
  return nullptr;
}

#endif

}  // namespace prismaquant::detail
