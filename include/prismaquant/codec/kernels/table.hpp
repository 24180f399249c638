/// @file
/// What a set of kernels for one instruction set offers: plain tables of functions on contiguous runs of a row.
///
/// Kernels never throw, allocate or touch anything outside of the run they are given. They expect the floating-point
/// environment of `fp_environment_guard`. `stream`: write past the caches, for outputs that are larger than them. An
/// empty entry stands for "not accelerated": the caller uses the scalar codec. Pointers to weights, codes and scales
/// are to the types of the entry's place in the table and the format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <tuple>

#include "prismaquant/codec/scale_rule_list.hpp"
#include "prismaquant/formats/format_list.hpp"

namespace prismaquant {

/// Largest magnitude of `count` weights as float32 bits: at least 0x7f800000 if any is NaN or infinite. Asks for the
/// memory `ahead` bytes behind what it reads.
using largest_kernel = std::uint32_t(void const* weights, std::size_t count, std::size_t ahead) noexcept;

/// Chooses scale codes, and zero points (a byte each) where the format has them, for `count` weights, a multiple of the
/// group size. `importance` may be null. Returns the largest magnitude as above; if it is not finite, what was chosen
/// is unspecified.
using choose_scales_kernel = std::uint32_t(void const* weights, float const* importance, std::size_t count,
                                           void* scales, std::uint8_t* zero_points, float global_scale) noexcept;

/// Encodes `count` finite weights, none larger than `amax`, in groups with the given scales.
using encode_groups_kernel = void(void const* weights, std::size_t count, float amax, void const* scales,
                                  std::uint8_t const* zero_points, float global_scale, void* codes,
                                  bool stream) noexcept;

/// Encodes `count` finite weights, none larger than `amax`, each divided by `scale`. `ahead` as above.
using encode_run_kernel = void(void const* weights, std::size_t count, float amax, float scale, void* codes,
                               bool stream, std::size_t ahead) noexcept;

/// Decodes groups with a scale each.
using decode_groups_kernel = void(void const* codes, void const* scales, std::uint8_t const* zero_points,
                                  std::size_t count, float global_scale, void* out, bool stream) noexcept;

/// Decodes `count` elements, each multiplied by `scale`.
using decode_run_kernel = void(void const* codes, std::size_t count, float scale, void* out, bool stream) noexcept;

/// Adds the errors of `count` decoded values to 16 lanes each of squared errors, squared weights and largest errors:
/// element i to lane i % 16.
using add_errors_kernel = void(void const* weights, float const* decoded, std::size_t count, double* squared_error,
                               double* squared_weight, double* max_error) noexcept;

/// float32, bfloat16, float16 as 0, 1, 2: the last index of every table.
template <class T>
inline constexpr int weight_type_index = std::same_as<T, float>      ? 0
                                         : std::same_as<T, bfloat16> ? 1
                                                                     : 2;
inline constexpr int weight_types = 3;

/// Place of a type in a tuple; the size of the tuple if it is not there.
template <class T, class Tuple>
inline constexpr std::size_t place_in = 0;
template <class T, class... Types>
inline constexpr std::size_t place_in<T, std::tuple<Types...>> = [] {
  std::size_t place = 0;
  static_cast<void>(((std::is_same_v<T, Types> || (++place, false)) || ...));
  return place;
}();

/// Kernels of one format: `choose`, `encode` and `decode` for groups along a row, the `run` ones for longer blocks and
/// for elements without scales.
struct format_kernels {
  choose_scales_kernel* choose[std::tuple_size_v<scale_rule_list>][weight_types] = {};
  encode_groups_kernel* encode[weight_types] = {};
  decode_groups_kernel* decode[weight_types] = {};
  encode_run_kernel* encode_run[weight_types] = {};
  decode_run_kernel* decode_run[weight_types] = {};
};

/// Kernels of one instruction set, formats in the order of the format list.
struct kernel_table {
  char const* isa = "";
  format_kernels formats[std::tuple_size_v<format_list>] = {};
  largest_kernel* largest[weight_types] = {};
  add_errors_kernel* add_errors[weight_types] = {};
};

}  // namespace prismaquant
