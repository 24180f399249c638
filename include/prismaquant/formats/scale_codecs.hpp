/// @file
/// Scale codecs: what a stored block scale means, and which codes a scale rule may choose for a block whose largest
/// magnitude is `amax`. All of them are small structs of static functions; nothing here sees a matrix.
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstdint>
#include <limits>

#include "prismaquant/core/float_types.hpp"
#include "prismaquant/formats/minifloat.hpp"

namespace prismaquant {

/// Codes `first` .. `last`, both included, that a scale sweep tries.
template <class Code>
struct code_window {
  Code first;
  Code last;
};

/// Formats without block scales: elements are stored as they are.
struct no_scale {
  using code_type = std::uint8_t;
  static constexpr int bits = 0;
};

/// NVFP4 block scale: a positive E4M3 number, divided by the global scale of the tensor. The effective scale is
/// float32(E4M3(code)) / global_scale, in float32: the operation and the order that compressed-tensors decodes with.
struct e4m3_scale {
  using code_type = std::uint8_t;
  static constexpr int bits = 8;
  static constexpr code_type min_code = 1;
  static constexpr code_type max_code = e4m3::max_code;

  static constexpr float decode(code_type code, float global_scale) noexcept {
    return e4m3::decode(code) / global_scale;
  }

  /// Nearest code of global_scale * (amax / element_max). A scale that rounds to zero becomes 0.125 (code 0x20), as in
  /// compressed-tensors `calculate_qparams`: a stored scale of zero is never written.
  static constexpr code_type from_amax(float amax, float element_max, float global_scale) noexcept {
    code_type const code = nearest(amax, element_max, global_scale);
    return code != 0 ? code : code_type{0x20};
  }

  /// Every code that can have the smallest squared error: with k0 the code of amax / element_max, codes
  /// max(1, k0 - 3) .. max(k0 + 7, 15), at most 126. Eight codes are one octave; a scale an octave above k0 uses only
  /// half of the element grid. Codes up to 15 are always tried because the relative steps of subnormal scales are wide.
  static constexpr code_window<code_type> sweep(float amax, float element_max, float global_scale) noexcept {
    int const k0 = nearest(amax, element_max, global_scale);
    return {static_cast<code_type>(std::max(1, k0 - 3)),
            static_cast<code_type>(std::min<int>(max_code, std::max(k0 + 7, 15)))};
  }

 private:
  static constexpr code_type nearest(float amax, float element_max, float global_scale) noexcept {
    return e4m3::encode(global_scale * (amax / element_max));
  }
};

/// OCP MX block scale: a power of two, code = exponent + 127. Never written: code 255 (NaN), code 0, whose value 2^-127
/// is subnormal in float32 and bfloat16, and codes under which the largest element would overflow float32. A block of
/// zeros gets code 127, the scale 1.
///
/// `RoundingBits` is the precision to which `from_amax` rounds amax before it takes its exponent: compressed-tensors
/// uses one bit for MXFP4 and MXFP8 (up from a mantissa of 1.75), and the mantissa bits of the element for MXFP6, so
/// that the exponent rises only where amax would round past the largest element (E2M3: from 1.9375). Formats that it
/// does not have follow the second rule.
template <int ElementMaxExponent, int RoundingBits = 1>
struct e8m0_scale {
  using code_type = std::uint8_t;
  static constexpr int bits = 8;
  static constexpr code_type min_code = 1;
  static constexpr code_type max_code = 254 - ElementMaxExponent;

  static constexpr float decode(code_type code, float /*global_scale*/) noexcept {
    return code != 0 ? std::bit_cast<float>(std::uint32_t{code} << 23) : 0x1p-127f;
  }

  /// The rule of compressed-tensors `generate_mx_scales`: amax is first rounded to `RoundingBits` mantissa bits; the
  /// exponent of that minus the exponent of the element's largest binade.
  static constexpr code_type from_amax(float amax, float /*element_max*/, float /*global_scale*/) noexcept {
    if (amax == 0.0f) return 127;
    constexpr std::uint32_t half = 1u << (22 - RoundingBits);
    return clamp(static_cast<int>((std::bit_cast<std::uint32_t>(amax) + half) >> 23) - ElementMaxExponent);
  }

  /// The OCP rule: floor(log2(amax)) - floor(log2(element_max)). Elements in the upper part of the top binade saturate.
  static constexpr code_type floor(float amax) noexcept {
    return amax == 0.0f ? code_type{127} : clamp(exponent(amax));
  }

  /// The smallest power of two under which amax does not saturate.
  static constexpr code_type ceil(float amax, float element_max) noexcept {
    if (amax == 0.0f) return 127;
    int const code = floor(amax);
    return clamp(double{amax} > double{element_max} * double{decode(static_cast<code_type>(code), 1.0f)} ? code + 1
                                                                                                         : code);
  }

  /// The OCP exponent and one above.
  static constexpr code_window<code_type> sweep(float amax, float /*element_max*/, float /*global_scale*/) noexcept {
    if (amax == 0.0f) return {127, 127};
    return {clamp(exponent(amax)), clamp(exponent(amax) + 1)};
  }

 private:
  static constexpr int exponent(float amax) noexcept {
    return static_cast<int>(std::bit_cast<std::uint32_t>(amax) >> 23) - ElementMaxExponent;
  }
  static constexpr code_type clamp(int code) noexcept {
    return static_cast<code_type>(std::clamp<int>(code, min_code, max_code));
  }
};

/// FP8 scale: a positive bfloat16 (its bits are the code), because engines and compressed-tensors decode to the dtype
/// of the scale. The rounded scale can be a little below amax / element_max: elements then saturate.
struct bf16_scale {
  using code_type = std::uint16_t;
  static constexpr int bits = 16;

  static constexpr float decode(code_type code, float /*global_scale*/) noexcept { return float(bfloat16{code}); }

  /// bfloat16(amax / element_max). A scale that rounds to zero becomes the bfloat16 epsilon 2^-7 (compressed-tensors);
  /// one under which half a step beyond the largest element would overflow float32 becomes the largest that does not.
  static constexpr code_type from_amax(float amax, float element_max, float /*global_scale*/) noexcept {
    float const limit = std::numeric_limits<float>::max() / (element_max + 0.5f);
    auto const largest = static_cast<code_type>(std::bit_cast<std::uint32_t>(limit) >> 16);
    code_type const code = std::min(bfloat16::round(amax / element_max).bits, largest);
    return code != 0 ? code : bfloat16::round(0x1p-7f).bits;
  }

  /// Not swept: the largest magnitude decides.
  static constexpr code_window<code_type> sweep(float amax, float element_max, float global_scale) noexcept {
    code_type const code = from_amax(amax, element_max, global_scale);
    return {code, code};
  }
};

/// A positive float32, stored as it is: what engines compute for activations (one per token), and the absmax of
/// bitsandbytes. A scale that rounds to zero becomes 2^-126, the smallest one that no processor flushes; one under
/// which the largest element would overflow float32 becomes the next smaller one.
struct float32_scale {
  using code_type = float;
  static constexpr int bits = 32;

  static constexpr float decode(code_type code, float /*global_scale*/) noexcept { return code; }

  static constexpr code_type from_amax(float amax, float element_max, float /*global_scale*/) noexcept {
    float const scale = std::max(amax / element_max, 0x1p-126f);
    bool const overflows = double{scale} * double{element_max} >= 0x1.ffffffp127;  // rounds to infinity
    return overflows ? std::bit_cast<float>(std::bit_cast<std::uint32_t>(scale) - 1u) : scale;
  }

  /// Not swept: the largest magnitude decides.
  static constexpr code_window<code_type> sweep(float amax, float element_max, float global_scale) noexcept {
    code_type const code = from_amax(amax, element_max, global_scale);
    return {code, code};
  }
};

/// Decodes a stored scale and proposes codes for a block.
template <class S>
concept scale_codec = requires(typename S::code_type code, float x) {
  { S::bits } -> std::convertible_to<int>;
  { S::decode(code, x) } -> std::same_as<float>;
  { S::from_amax(x, x, x) } -> std::same_as<typename S::code_type>;
  { S::sweep(x, x, x) } -> std::same_as<code_window<typename S::code_type>>;
};

}  // namespace prismaquant
