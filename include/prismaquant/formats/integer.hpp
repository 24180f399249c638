/// @file
/// `integer`: signed integers of at most 8 bits as element codes, with an optional fixed power of two.
/// Sources: compressed-tensors (`int-quantized`, `pack-quantized`), OCP Microscaling Formats (MX) v1.0 (INT8).
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "prismaquant/formats/minifloat.hpp"

namespace prismaquant {

/// How an integer becomes a code.
enum class integer_code {
  twos_complement,  ///< the bits of the integer
  offset_binary,    ///< the integer minus the lowest one
};

/// value = integer * 2^-FractionBits, the integer from -2^(Bits - 1) or, if `Symmetric`, from one above it. A symmetric
/// element still decodes the code that it never writes.
template <int Bits, integer_code Code, bool Symmetric = false, int FractionBits = 0>
struct integer {
  static_assert(Bits >= 2 && Bits <= 8 && FractionBits >= 0 && FractionBits < Bits);
  using code_type = std::uint8_t;

  static constexpr int bits = Bits;
  static constexpr int highest = (1 << (Bits - 1)) - 1;
  static constexpr int lowest = Symmetric ? -highest : -highest - 1;

  static constexpr float decode(code_type code) noexcept {
    int const bottom = 1 << (Bits - 1);
    int const low_bits = code & (2 * bottom - 1);
    return static_cast<float>((Code == integer_code::offset_binary ? low_bits : low_bits ^ bottom) - bottom) * step;
  }

  /// Code of the nearest value, ties to the even integer; beyond the ends saturating. NaN gives zero.
  static constexpr code_type encode(float value) noexcept {
    float const scaled = value * static_cast<float>(1 << FractionBits);
    if (scaled != scaled) return code_of(0);
    float const inside = std::clamp(scaled, static_cast<float>(lowest), static_cast<float>(highest));
    // Adding 1.5 * 2^23 rounds to an integer, ties to even, in the low bits of the sum.
    constexpr float shift = 0x1.8p23f;
    return code_of(std::bit_cast<std::int32_t>(inside + shift) - std::bit_cast<std::int32_t>(shift));
  }

  static constexpr float step = 1.0f / static_cast<float>(1 << FractionBits);
  static constexpr float max_value = static_cast<float>(highest) * step;
  static constexpr float min_value = static_cast<float>(lowest) * step;
  static constexpr int max_exponent = Bits - 2 - FractionBits;  ///< floor(log2(max_value))

  /// compressed-tensors divides amax by half the number of steps between the ends: 127.5 for -128 .. 127.
  static constexpr float full_scale = Symmetric ? max_value : (max_value - min_value) / 2;

 private:
  static constexpr code_type code_of(int value) noexcept {
    int const bottom = 1 << (Bits - 1);
    return static_cast<code_type>((Code == integer_code::offset_binary ? value + bottom : value) & (2 * bottom - 1));
  }
};

/// -8 .. 7, stored as 0 .. 15.
using int4_element = integer<4, integer_code::offset_binary>;
using int8_element = integer<8, integer_code::twos_complement>;
/// -127 .. 127.
using symmetric_int8_element = integer<8, integer_code::twos_complement, true>;
/// -127/64 .. 127/64. OCP MX allows the code of -2 to stay unused, so that the range is symmetric.
using mxint8_element = integer<8, integer_code::twos_complement, true, 6>;

static_assert(element_codec<int4_element> && full_scale<int4_element> == 7.5f && full_scale<int8_element> == 127.5f);
static_assert(int4_element::decode(0) == -8.0f && int4_element::encode(2.5f) == 10 && int4_element::encode(9.0f) == 15);
static_assert(int8_element::decode(0x80) == -128.0f && symmetric_int8_element::encode(-500.0f) == 0x81);
static_assert(mxint8_element::max_value == 1.984375f && mxint8_element::max_exponent == 0);

}  // namespace prismaquant
