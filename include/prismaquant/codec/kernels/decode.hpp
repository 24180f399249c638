/// @file
/// Decoding a run: element * scale in float32, stored as such or rounded to 16 bits.
///
/// An output that is larger than the caches is written past them: a plain store first reads the line that it is about
/// to overwrite, which doubles the traffic. Past the caches means whole aligned lines, so runs whose address is not a
/// multiple of 16 bytes are written plainly.
#pragma once

#include "prismaquant/codec/kernels/decode_e2m1.hpp"
#include "prismaquant/codec/kernels/layouts.hpp"
#include "prismaquant/codec/kernels/rounding.hpp"
#include "prismaquant/codec/kernels/rows.hpp"
#include "prismaquant/codec/kernels/scales.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

/// Types of decoded values, in the order of `input`.
enum class output { float32, bfloat16, float16 };

template <output Out>
inline constexpr std::size_t output_bytes = Out == output::float32 ? 4 : 2;

/// 32 decoded values to elements i .. i + 31 of a run.
template <output Out, how How>
PRISMAQUANT_INLINE void put_32(void* out, std::size_t i, f32 a, f32 b) {
  if constexpr (Out == output::float32) {
    auto* const to = static_cast<float*>(out) + i;
    store_how<How>(to, a);
    store_how<How>(to + 16, b);
  } else if constexpr (Out == output::bfloat16) {
    store_how<How>(static_cast<std::uint16_t*>(out) + i, pack_u16(round_bf16(a), round_bf16(b)));
  } else {
    store_how<How>(static_cast<std::uint16_t*>(out) + i, pack_u16(round_fp16(a), round_fp16(b)));
  }
}

/// Factors and zero points of 16 groups.
struct group_factors {
  alignas(64) float scale[16], zero_point[16];
};

template <class F>
PRISMAQUANT_INLINE void set_factors(group_factors& to, void const* scales, std::uint8_t const* zero_points,
                                    std::size_t i, f32 global_scale) {
  using lanes = scale_lanes<typename F::scale>;
  store(to.scale, lanes::decode(load_codes<typename F::scale::code_type>(scales, i), global_scale));
  if constexpr (has_zero_points<F>) {
    store(to.zero_point, element_lanes<typename F::element>::decode(load_u8(zero_points + i)));
  }
}

/// Sixteen groups from element `i` on.
template <class F, output Out, how How>
[[gnu::noinline]] void decode_chunk(std::uint8_t const* codes, group_factors const& factors, void* out,
                                    std::size_t i) noexcept {
  using element = element_lanes<typename F::element>;
  constexpr std::size_t group = F::block_shape::columns;
  auto const value = [&](std::size_t e) PRISMAQUANT_INLINE_LAMBDA {
    f32 x = element::decode(layout_lanes<typename F::layout>::get(codes, i + e));
    if constexpr (has_zero_points<F>) x = x - splat(factors.zero_point[e / group]);
    return x * splat(factors.scale[e / group]);
  };
  for (std::size_t e = 0; e < groups_at_once * group; e += 32) put_32<Out, How>(out, i + e, value(e), value(e + 16));
}

#if defined(PRISMAQUANT_AVX512)
/// The same for E2M1 to bfloat16. False, with nothing done, if a scale is out of the range of `e2m1_bf16_tables`.
template <class F, how How>
[[gnu::noinline]] bool decode_e2m1_bf16(std::uint8_t const* codes, group_factors const& factors, void* out,
                                        std::size_t i) noexcept {
  constexpr std::size_t group = F::block_shape::columns;
  e2m1_bf16_tables tables;
  if (!tables.set(factors.scale)) return false;
  PRISMAQUANT_UNROLL
  for (std::size_t e = 0; e < groups_at_once * group; e += 32) {
    store_how<How>(static_cast<std::uint16_t*>(out) + i + e,
                   look_up_nibbles(codes + (i + e) / 2, tables.template table<group>(e)));
  }
  return true;
}
#endif

template <class F, output Out, how How>
PRISMAQUANT_INLINE void decode_groups_at(std::uint8_t const* codes, group_factors const& factors, void* out,
                                         std::size_t i) {
#if defined(PRISMAQUANT_AVX512)
  if constexpr (std::same_as<typename F::element, e2m1> && std::same_as<typename F::layout, packed_nibbles> &&
                Out == output::bfloat16) {
    if (decode_e2m1_bf16<F, How>(codes, factors, out, i)) return;
  }
#endif
  decode_chunk<F, Out, How>(codes, factors, out, i);
}

template <class F, output Out>
void decode_groups(void const* codes, void const* scales, std::uint8_t const* zero_points, std::size_t count,
                   float global_scale, void* out, bool stream) noexcept {
  using code_type = typename F::scale::code_type;
  constexpr std::size_t group = F::block_shape::columns, chunk = groups_at_once * group;
  constexpr std::size_t bits = layout_lanes<typename F::layout>::bits_per_code, chunk_bytes = chunk * bits / 8;
  auto const* const from = static_cast<std::uint8_t const*>(codes);
  f32 const divisor = splat(global_scale);
  constexpr std::size_t chunks_ahead = 4;  // factors wait for a division: those of the first are long known then
  group_factors factors[chunks_ahead];
  std::size_t i = 0;
  with_stores(out, stream, [&](auto way) PRISMAQUANT_INLINE_LAMBDA {
    while (i + chunk <= count) {
      std::size_t const whole = (count - i) / chunk, n = whole < chunks_ahead ? whole : chunks_ahead;
      for (std::size_t k = 0; k < n; ++k) {
        set_factors<F>(factors[k], scales, zero_points, i / group + k * groups_at_once, divisor);
      }
      for (std::size_t k = 0; k < n; ++k, i += chunk) {
        PRISMAQUANT_UNROLL
        for (std::size_t byte = 0; byte < chunk_bytes; byte += 64) prefetch(from, i * bits / 8 + byte + 1024);
        decode_groups_at<F, Out, decltype(way)::value>(from, factors[k], out, i);
      }
    }
  });
  if (i == count) return;
  alignas(64) std::uint8_t rest_codes[chunk_bytes] = {};
  alignas(64) unsigned char rest[chunk * output_bytes<Out>];
  code_type rest_scales[groups_at_once] = {};
  std::uint8_t rest_zero_points[groups_at_once] = {};
  __builtin_memcpy(rest_codes, from + i * bits / 8, (count - i) * bits / 8);
  __builtin_memcpy(rest_scales, static_cast<code_type const*>(scales) + i / group,
                   (count - i) / group * sizeof(code_type));
  if constexpr (has_zero_points<F>) __builtin_memcpy(rest_zero_points, zero_points + i / group, (count - i) / group);
  set_factors<F>(factors[0], rest_scales, rest_zero_points, 0, divisor);
  decode_groups_at<F, Out, how::plain>(rest_codes, factors[0], rest, 0);
  __builtin_memcpy(static_cast<char*>(out) + i * output_bytes<Out>, rest, (count - i) * output_bytes<Out>);
}

/// A run under one scale, or without.
template <class F, output Out>
void decode_run(void const* codes, std::size_t count, float scale, void* out, bool stream) noexcept {
  using element = element_lanes<typename F::element>;
  using layout = layout_lanes<typename F::layout>;
  constexpr auto code_bytes = [](std::size_t elements) { return elements * layout::bits_per_code / 8; };
  auto const* const from = static_cast<std::uint8_t const*>(codes);
  f32 const factor = splat(scale);
  auto const value = [&](std::uint8_t const* p, std::size_t i) PRISMAQUANT_INLINE_LAMBDA {
    f32 const x = element::decode(layout::get(p, i));
    return has_scales<F> ? x * factor : x;
  };
  with_stores(out, stream, [&](auto way) PRISMAQUANT_INLINE_LAMBDA {
    std::size_t i = 0;
    for (; i + 32 <= count; i += 32) {
      prefetch(from, code_bytes(i) + 2048);
      put_32<Out, decltype(way)::value>(out, i, value(from, i), value(from, i + 16));
    }
    if (i == count) return;
    std::uint8_t rest_codes[code_bytes(32)] = {};
    alignas(64) unsigned char rest[32 * output_bytes<Out>];
    __builtin_memcpy(rest_codes, from + code_bytes(i), code_bytes(count - i));
    put_32<Out, how::plain>(rest, 0, value(rest_codes, 0), value(rest_codes, 16));
    __builtin_memcpy(static_cast<char*>(out) + i * output_bytes<Out>, rest, (count - i) * output_bytes<Out>);
  });
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
