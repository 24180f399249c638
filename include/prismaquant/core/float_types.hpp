/// @file
/// Storage types for the 16-bit floats in which model weights arrive, with exact conversion to float32.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <limits>

namespace prismaquant {

/// bfloat16: the upper half of a float32. Storage only; arithmetic happens in float32.
struct bfloat16 {
  std::uint16_t bits;

  constexpr operator float() const noexcept { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

  /// Nearest bfloat16, ties to even; NaN stays NaN (quiet), overflow gives infinity as in IEEE 754.
  static constexpr bfloat16 round(float value) noexcept {
    auto const u = std::bit_cast<std::uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((u >> 16) | 0x40u)};
    return {static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
  }
};

/// IEEE 754 binary16. Storage only.
struct float16 {
  std::uint16_t bits;

  /// Nearest float16, ties to even; NaN stays NaN (quiet), overflow (from 65520 on) gives infinity as in IEEE 754.
  static constexpr float16 round(float value) noexcept {
    auto const u = std::bit_cast<std::uint32_t>(value);
    std::uint32_t const sign = (u >> 16) & 0x8000u;
    std::uint32_t const magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return {static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu))};
    if (magnitude >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};
    if (magnitude >= 0x38800000u) {  // normal: rebias the exponent, a carry out of the mantissa is right
      std::uint32_t const rebiased = magnitude - (112u << 23);
      return {static_cast<std::uint16_t>(sign | ((rebiased + 0xfffu + ((rebiased >> 13) & 1u)) >> 13))};
    }
    // Subnormal: shift the full significand by what its exponent lacks; below half of the smallest one zero is nearest.
    std::uint32_t const shift = 126u - (magnitude >> 23);
    if (shift > 25u) return {static_cast<std::uint16_t>(sign)};
    std::uint32_t const full = (magnitude & 0x7fffffu) | 0x800000u;
    std::uint32_t const half = (1u << (shift - 1u)) - 1u;
    return {static_cast<std::uint16_t>(sign | ((full + half + ((full >> shift) & 1u)) >> shift))};
  }

  constexpr operator float() const noexcept {
    std::uint32_t const sign = std::uint32_t{bits & 0x8000u} << 16;
    std::uint32_t const exponent = (bits >> 10) & 0x1fu;
    std::uint32_t const mantissa = bits & 0x3ffu;
    if (exponent == 0x1fu) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
    if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
    float const magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal: exact, 10 bits times a power of two
    return sign != 0 ? -magnitude : magnitude;
  }
};

/// A type in which weights may be given.
template <class T>
concept weight_type = std::same_as<T, float> || std::same_as<T, bfloat16> || std::same_as<T, float16>;

/// Whether `value` is neither NaN nor infinite. Works on the bits, so it also holds under -ffast-math.
constexpr bool is_finite(float value) noexcept {
  return (std::bit_cast<std::uint32_t>(value) & 0x7f800000u) != 0x7f800000u;
}

/// `value` as a `T`: nearest, ties to even.
template <weight_type T>
constexpr T round_to(float value) noexcept {
  if constexpr (std::same_as<T, float>) {
    return value;
  } else {
    return T::round(value);
  }
}

/// |value| without <cmath>, so that kernels stay free of library symbols.
constexpr float magnitude(float value) noexcept {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) & 0x7fffffffu);
}

static_assert(float(bfloat16{0x3f80}) == 1.0f && bfloat16::round(1.00390625f).bits == 0x3f80);
static_assert(float(float16{0x3c00}) == 1.0f && float(float16{0x0001}) == 0x1p-24f &&
              float(float16{0xfbff}) == -65504.0f);
static_assert(float16::round(65519.0f).bits == 0x7bff && float16::round(-65520.0f).bits == 0xfc00 &&
              float16::round(0x1.8p-24f).bits == 2 && float16::round(0x1p-25f).bits == 0);

}  // namespace prismaquant
