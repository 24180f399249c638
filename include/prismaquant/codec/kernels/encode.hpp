/// @file
/// Encoding elements under scales that are known: groups along a row, and runs under one scale.
///
/// An element is the code of weight / scale, the quotient in float32. Where no code depends on more than the side of a
/// threshold of few bits on which the quotient lies, it is replaced by a product with the inverse and one correction,
/// three instructions that all run in every cycle instead of a division:
///
///   r = 1 / scale (rounded), q = weight * r, e = q * scale - weight (exact), quotient' = q - e * r.
///
/// quotient' differs from the rounded quotient by at most one last place, and never lies on another side of a threshold
/// of up to 9 significant bits: `test_quotient.cpp` goes over all significands of the scale and all thresholds.
/// It needs e exact and q finite, which `corrected` sees to.
#pragma once

#include "prismaquant/codec/kernels/lines.hpp"
#include "prismaquant/codec/kernels/rows.hpp"
#include "prismaquant/codec/kernels/scales.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

enum class division {
  exact,      ///< as it is written
  corrected,  ///< by the inverse, corrected
  inverse,    ///< by the inverse, which is exact
};

/// One scale for 16 lanes, with its inverse and zero point.
struct divisor {
  f32 scale, inverse, zero_point;
};

template <class F, division Division>
PRISMAQUANT_INLINE f32 quotient(f32 x, divisor const& d) {
  f32 q;
  if constexpr (Division == division::inverse) {
    q = x * d.inverse;
#if defined(PRISMAQUANT_FMA)
  } else if constexpr (Division == division::corrected) {
    f32 const near = x * d.inverse;
    q = minus_product(near, product_minus(near, d.scale, x), d.inverse);
#endif
  } else {
    q = x / d.scale;
  }
  if constexpr (has_zero_points<F>) q = q + d.zero_point;
  return q;
}

/// Whether quotients of `F` may be corrected ones: with a zero point they are rounded twice.
template <class F>
inline constexpr bool may_correct =
#if defined(PRISMAQUANT_FMA)
    !has_zero_points<F> && element_lanes<typename F::element>::threshold_bits != 0 &&
    element_lanes<typename F::element>::threshold_bits <= 9;
#else
    false;
#endif

/// Bounds within which no step of a corrected quotient overflows or loses bits to subnormals.
inline constexpr float smallest_corrected = 0x1p-60f, largest_corrected = 0x1p60f;

/// Scales, inverses and zero points of 16 groups.
struct group_divisors {
  alignas(64) float scale[16], inverse[16], zero_point[16];

  PRISMAQUANT_INLINE divisor of(std::size_t g) const {
    return {splat(scale[g]), splat(inverse[g]), splat(zero_point[g])};
  }
};

/// Sets `to` from the scale codes i .. i + 15. Returns whether quotients may be corrected.
template <class F>
PRISMAQUANT_INLINE bool set_divisors(group_divisors& to, void const* scales, std::uint8_t const* zero_points,
                                     std::size_t i, f32 global_scale) {
  using lanes = scale_lanes<typename F::scale>;
  i32 const code = load_codes<typename F::scale::code_type>(scales, i);
  if constexpr (has_zero_points<F>) {
    store(to.zero_point, element_lanes<typename F::element>::decode(load_u8(zero_points + i)));
  }
  if constexpr (lanes::has_exact_inverse) {
    store(to.inverse, lanes::inverse(code));
    return false;
  } else {
    f32 const scale = lanes::decode(code, global_scale);
    store(to.scale, scale);
    if constexpr (!may_correct<F>) return false;
    store(to.inverse, splat(1.0f) / scale);
    i32 const outside = less(scale, splat(smallest_corrected)) | less(splat(largest_corrected), scale);
    return is_zero(outside);
  }
}

/// Codes of the elements of 16 groups from weight `i` on.
template <class F, input In, division Division, how How>
[[gnu::noinline]] void encode_chunk(void const* weights, std::size_t i, group_divisors const& divisors,
                                    std::uint8_t* out) noexcept {
  using line_type = line<element_lanes<typename F::element>, typename F::layout>;
  constexpr std::size_t group = F::block_shape::columns, chunk = groups_at_once * group;
  prefetch_half<chunk * input_bytes<In>, 1>(weights, i * input_bytes<In>);
  static_assert(line_type::elements % group == 0 || group % line_type::elements == 0);
  for (std::size_t e = 0; e < chunk; e += line_type::elements, out += line_type::bytes) {
    f32 q[line_type::vectors];
    PRISMAQUANT_UNROLL
    for (std::size_t k = 0; k < line_type::vectors; ++k) {
      std::size_t const g = e / group + 16 * k / group;
      q[k] = quotient<F, Division>(load_weights<In>(weights, i + e + 16 * k), divisors.of(g));
    }
    line_type::template put<How>(out, q);
  }
}

template <class F, input In, how How>
PRISMAQUANT_INLINE void encode_chunk(void const* weights, std::size_t i, group_divisors const& divisors, bool corrected,
                                     std::uint8_t* out) {
  if constexpr (scale_lanes<typename F::scale>::has_exact_inverse) {
    encode_chunk<F, In, division::inverse, How>(weights, i, divisors, out);
  } else if constexpr (may_correct<F>) {
    if (corrected) {
      encode_chunk<F, In, division::corrected, How>(weights, i, divisors, out);
    } else {
      encode_chunk<F, In, division::exact, how::plain>(weights, i, divisors, out);
    }
  } else {
    encode_chunk<F, In, division::exact, How>(weights, i, divisors, out);
  }
}

template <class F, input In>
void encode_groups(void const* weights, std::size_t count, float amax, void const* scales,
                   std::uint8_t const* zero_points, float global_scale, void* codes, bool stream) noexcept {
  using code_type = typename F::scale::code_type;
  constexpr std::size_t group = F::block_shape::columns, chunk = groups_at_once * group;
  constexpr auto code_bytes = [](std::size_t elements) {
    return elements * layout_lanes<typename F::layout>::bits_per_code / 8;
  };
  constexpr std::size_t chunks_ahead =
      round_bytes / (chunk * input_bytes<In>) > 0 ? round_bytes / (chunk * input_bytes<In>) : 1;
  auto* const out = static_cast<std::uint8_t*>(codes);
  f32 const divisor_of_all = splat(global_scale);
  bool const small = amax <= largest_corrected;
  group_divisors divisors[chunks_ahead];
  bool corrected[chunks_ahead];
  std::size_t i = 0;
  with_stores(out, stream, [&](auto way) PRISMAQUANT_INLINE_LAMBDA {
    while (i + chunk <= count) {
      std::size_t const whole = (count - i) / chunk;
      std::size_t const n = whole < chunks_ahead ? whole : chunks_ahead;
      for (std::size_t k = 0; k < n; ++k) {
        corrected[k] =
            set_divisors<F>(divisors[k], scales, zero_points, i / group + k * groups_at_once, divisor_of_all) && small;
      }
      for (std::size_t k = 0; k < n; ++k, i += chunk) {
        encode_chunk<F, In, decltype(way)::value>(weights, i, divisors[k], corrected[k], out + code_bytes(i));
      }
    }
  });
  if (i == count) return;
  alignas(64) unsigned char rest[chunk * input_bytes<In>] = {};
  alignas(64) std::uint8_t rest_codes[code_bytes(chunk)];
  code_type rest_scales[groups_at_once];
  std::uint8_t rest_zero_points[groups_at_once] = {};
  std::size_t const groups = (count - i) / group;
  __builtin_memcpy(rest, static_cast<char const*>(weights) + i * input_bytes<In>, (count - i) * input_bytes<In>);
  for (std::size_t g = 0; g < groups_at_once; ++g) {  // groups beyond the end: as the last one
    rest_scales[g] = static_cast<code_type const*>(scales)[i / group + (g < groups ? g : groups - 1)];
  }
  if constexpr (has_zero_points<F>) __builtin_memcpy(rest_zero_points, zero_points + i / group, groups);
  bool const may = set_divisors<F>(divisors[0], rest_scales, rest_zero_points, 0, divisor_of_all) && small;
  encode_chunk<F, In, how::plain>(rest, 0, divisors[0], may, rest_codes);
  __builtin_memcpy(out + code_bytes(i), rest_codes, code_bytes(count - i));
}

template <class F, input In, division Division>
PRISMAQUANT_INLINE void encode_run_how(void const* weights, std::size_t count, divisor const& d, std::uint8_t* out,
                                       bool stream, std::size_t ahead) {
  using line_type = line<element_lanes<typename F::element>, typename F::layout>;
  auto const put = [&](auto way, void const* from, std::size_t i, std::uint8_t* to) PRISMAQUANT_INLINE_LAMBDA {
    f32 q[line_type::vectors];
    PRISMAQUANT_UNROLL
    for (std::size_t k = 0; k < line_type::vectors; ++k) {
      f32 const x = load_weights<In>(from, i + 16 * k);
      if constexpr (has_scales<F>) {
        q[k] = quotient<F, Division>(x, d);
      } else {
        q[k] = x;
      }
    }
    line_type::template put<decltype(way)::value>(to, q);
  };
  constexpr auto code_bytes = [](std::size_t elements) { return elements * line_type::bytes / line_type::elements; };
  with_stores(out, stream, [&](auto way) PRISMAQUANT_INLINE_LAMBDA {
    for_each_chunk<line_type::elements, In>(
        weights, count,
        [&](void const* from, std::size_t i) PRISMAQUANT_INLINE_LAMBDA {
          constexpr std::size_t bytes = line_type::elements * input_bytes<In>;
          PRISMAQUANT_UNROLL
          for (std::size_t byte = 0; byte < bytes; byte += 64) prefetch(from, i * input_bytes<In> + byte + ahead);
          put(way, from, i, out + code_bytes(i));
        },
        [&](void const* from, std::size_t i, std::size_t n) PRISMAQUANT_INLINE_LAMBDA {
          alignas(64) std::uint8_t rest[line_type::bytes];
          put(how_constant<how::plain>{}, from, 0, rest);
          __builtin_memcpy(out + code_bytes(i), rest, code_bytes(n));
        });
  });
}

template <class F, input In>
void encode_run(void const* weights, std::size_t count, float amax, float scale, void* codes, bool stream,
                std::size_t ahead) noexcept {
  divisor const d{splat(scale), splat(1.0f / scale), splat(0.0f)};
  auto* const out = static_cast<std::uint8_t*>(codes);
  if constexpr (may_correct<F>) {
    if (amax <= largest_corrected && scale >= smallest_corrected && scale <= largest_corrected) {
      return encode_run_how<F, In, division::corrected>(weights, count, d, out, stream, ahead);
    }
  }
  encode_run_how<F, In, division::exact>(weights, count, d, out, stream, ahead);
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
