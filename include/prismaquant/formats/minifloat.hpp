/// @file
/// `minifloat`: binary floating-point numbers of at most 16 bits as data (exponent bits, mantissa bits, special codes).
/// Sources: OCP Microscaling Formats (MX) v1.0 (E2M1, E2M3, E3M2, E8M0), OCP 8-bit Floating Point v1.0 (E4M3, E5M2).
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <type_traits>

namespace prismaquant {

/// How the codes above the largest finite value are spent.
enum class special_values {
  none,      ///< every code is a finite number (E2M1)
  nan_only,  ///< the top magnitude is NaN, there is no infinity (E4M3FN)
  ieee,      ///< the top exponent holds infinity and NaN (E5M2, binary16, bfloat16)
};

/// A float with a sign bit, `E` exponent bits and `M` >= 1 mantissa bits in the low bits of a code, subnormals
/// included.
template <int E, int M, special_values Specials, int Bias = (1 << (E - 1)) - 1>
struct minifloat {
  static_assert(E >= 2 && E <= 8 && M >= 1 && E + M <= 15);
  using code_type = std::conditional_t<(1 + E + M <= 8), std::uint8_t, std::uint16_t>;

  static constexpr int bits = 1 + E + M;
  static constexpr code_type sign_mask = static_cast<code_type>(1u << (E + M));
  static constexpr code_type magnitude_mask = static_cast<code_type>(sign_mask - 1u);
  /// Code of the largest finite magnitude.
  static constexpr code_type max_code =
      static_cast<code_type>(Specials == special_values::none       ? magnitude_mask
                             : Specials == special_values::nan_only ? magnitude_mask - 1u
                                                                    : (((1u << E) - 1u) << M) - 1u);

  /// Value of a code; exact. Bits above the format's own are ignored.
  static constexpr float decode(code_type code) noexcept {
    std::uint32_t const magnitude = code & magnitude_mask;
    std::uint32_t const sign = (code & sign_mask) != 0 ? 0x80000000u : 0u;
    if (magnitude > max_code) {
      bool const infinite = Specials == special_values::ieee && magnitude == max_code + 1u;
      return std::bit_cast<float>(sign | (infinite ? 0x7f800000u : 0x7fc00000u));
    }
    if constexpr (E == 8 && Bias == 127) {
      return std::bit_cast<float>(sign | (magnitude << (23 - M)));
    } else {
      std::uint32_t const exponent = magnitude >> M;
      std::uint32_t const mantissa = magnitude & ((1u << M) - 1u);
      if (exponent != 0) {
        return std::bit_cast<float>(sign | ((exponent + (127 - Bias)) << 23) | (mantissa << (23 - M)));
      }
      float const value = static_cast<float>(mantissa) * power_of_two(1 - Bias - M);
      return sign != 0 ? -value : value;
    }
  }

  static constexpr float max_value = decode(max_code);

  /// Exponent of the largest binade: floor(log2(max_value)).
  static constexpr int max_exponent = static_cast<int>(std::bit_cast<std::uint32_t>(max_value) >> 23) - 127;

  /// Code of the nearest value, ties to the even code. Exact for every float32: rounds once, on the bits.
  /// Magnitudes beyond the largest finite value, infinities included, saturate to it. The sign of zero is kept.
  /// NaN gives the format's NaN with the sign of the input; without a NaN it gives zero.
  static constexpr code_type encode(float value) noexcept {
    auto const u = std::bit_cast<std::uint32_t>(value);
    auto const sign = static_cast<code_type>((u >> 31) << (E + M));
    std::uint32_t const magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
      return Specials == special_values::none ? code_type{0} : static_cast<code_type>(sign | magnitude_mask);
    }
    std::uint32_t const code = round(magnitude);
    return static_cast<code_type>(sign | (code < max_code ? code : max_code));
  }

 private:
  static constexpr float power_of_two(int exponent) noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23);
  }

  /// `bits` >> `shift`, rounded to nearest, ties to even; 1 <= shift <= 31.
  static constexpr std::uint32_t shift_round(std::uint32_t value, int shift) noexcept {
    std::uint32_t const half = (1u << (shift - 1)) - 1u;
    return (value + half + ((value >> shift) & 1u)) >> shift;
  }

  /// Magnitude code of the float32 magnitude bits, before saturation.
  static constexpr std::uint32_t round(std::uint32_t magnitude) noexcept {
    constexpr int shift = 23 - M;
    if constexpr (E == 8 && Bias == 127) {
      return shift_round(magnitude, shift);
    } else {
      // 1. In the range of normal targets exponent and mantissa move together: a carry out of the mantissa is right.
      constexpr std::uint32_t rebias = static_cast<std::uint32_t>(127 - Bias) << 23;
      if (magnitude >= rebias + (1u << 23)) return shift_round(magnitude - rebias, shift);
      // 2. Below, the target is a fixed-point number: shift the full significand by what its exponent lacks.
      int const missing = (128 - Bias) - static_cast<int>(magnitude >> 23);
      if (shift + missing > 25) return 0;  // less than half of the smallest subnormal (float32 subnormals are here too)
      return shift_round((magnitude & 0x7fffffu) | 0x800000u, shift + missing);
    }
  }
};

using e2m1 = minifloat<2, 1, special_values::none>;
using e2m3 = minifloat<2, 3, special_values::none>;
using e3m2 = minifloat<3, 2, special_values::none>;
using e4m3 = minifloat<4, 3, special_values::nan_only>;
using e5m2 = minifloat<5, 2, special_values::ieee>;
using bf16_element = minifloat<8, 7, special_values::ieee>;
using fp16_element = minifloat<5, 10, special_values::ieee>;

static_assert(e2m1::max_value == 6.0f && e4m3::max_value == 448.0f && e5m2::max_value == 57344.0f);
static_assert(e2m3::max_value == 7.5f && e3m2::max_value == 28.0f && fp16_element::max_value == 65504.0f);
static_assert(e2m1::decode(1) == 0.5f && e2m1::decode(15) == -6.0f && e4m3::decode(1) == 0x1p-9f);
static_assert(e4m3::encode(464.0f) == 0x7e && e4m3::encode(0x1p-10f) == 0 && e4m3::encode(1.0625f) == 0x38);
static_assert(e2m1::encode(0.25f) == 0 && e2m1::encode(0.75f) == 2 && e2m1::encode(5.0f) == 6 &&
              e2m1::encode(-0.0f) == 8);

/// Maps a small integer code to a float and a float to the nearest code.
template <class C>
concept element_codec = requires(typename C::code_type code, float value) {
  { C::bits } -> std::convertible_to<int>;
  { C::decode(code) } -> std::same_as<float>;
  { C::encode(value) } -> std::same_as<typename C::code_type>;
  { C::max_value } -> std::convertible_to<float>;
};

/// The magnitude to which a scale rule maps the largest magnitude of a block: the element's largest value, where the
/// element does not say otherwise (integers count half a step beyond it).
template <element_codec E>
inline constexpr float full_scale = [] {
  if constexpr (requires { E::full_scale; }) {
    return E::full_scale;
  } else {
    return E::max_value;
  }
}();

}  // namespace prismaquant
