/// @file
/// What a set of kernels for one instruction set offers: a plain table of functions on contiguous rows.
///
/// Kernels never throw, allocate or touch anything outside of the row they are given. They expect the floating-point
/// environment of `fp_environment_guard`. `stream`: write past the caches, for outputs that are larger than them. An
/// empty entry stands for "not accelerated": the caller uses the scalar codec.
#pragma once

#include <cstddef>
#include <cstdint>

namespace prismaquant {

/// Encodes `count` weights in groups with one scale byte each. False if any weight is NaN or infinite; codes and scales
/// are then unspecified. `count` is a multiple of the group.
using encode_groups_kernel = bool(void const* weights, std::size_t count, std::uint8_t* codes, std::uint8_t* scales,
                                  float global_scale, bool stream) noexcept;

/// Encodes `count` finite weights, each divided by `scale`.
using encode_scaled_kernel = void(void const* weights, std::size_t count, float scale, void* codes,
                                  bool stream) noexcept;

/// Largest magnitude of `count` weights as float32 bits: at least 0x7f800000 if any is NaN or infinite.
using largest_kernel = std::uint32_t(void const* weights, std::size_t count) noexcept;

/// Decodes groups with one scale byte each.
using decode_groups_kernel = void(std::uint8_t const* codes, std::uint8_t const* scales, std::size_t count,
                                  float global_scale, void* out, bool stream) noexcept;

/// Decodes `count` elements, each multiplied by `scale`.
using decode_scaled_kernel = void(void const* codes, std::size_t count, float scale, void* out, bool stream) noexcept;

/// Kernels by input type (float32, bfloat16, float16) or output type (float32, bfloat16).
struct kernel_table {
  char const* isa = "";

  encode_groups_kernel* nvfp4_amax[3] = {};
  encode_groups_kernel* nvfp4_sweep[3] = {};
  encode_groups_kernel* mxfp4_amax[3] = {};
  encode_groups_kernel* mxfp8_e4m3_amax[3] = {};

  largest_kernel* largest[3] = {};
  encode_scaled_kernel* fp8_e4m3[3] = {};
  encode_scaled_kernel* bf16[3] = {};

  decode_groups_kernel* nvfp4_decode[2] = {};
  decode_groups_kernel* mxfp4_decode[2] = {};
  decode_groups_kernel* mxfp8_e4m3_decode[2] = {};
  decode_scaled_kernel* fp8_e4m3_decode[2] = {};
  decode_scaled_kernel* bf16_decode[2] = {};
};

}  // namespace prismaquant
