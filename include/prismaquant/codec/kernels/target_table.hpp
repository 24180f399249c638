/// @file
/// The kernels of the instruction set that this translation unit is compiled for, as a table.
#pragma once

#include "prismaquant/codec/kernels/decode.hpp"
#include "prismaquant/codec/kernels/encode_groups.hpp"
#include "prismaquant/codec/kernels/encode_scaled.hpp"
#include "prismaquant/codec/kernels/table.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

template <class Scale, class Element>
constexpr void fill(encode_groups_kernel* (&to)[3]) {
  to[0] = &encode_groups<Scale, Element, input::float32>;
  to[1] = &encode_groups<Scale, Element, input::bfloat16>;
  to[2] = &encode_groups<Scale, Element, input::float16>;
}
template <class Scale, class Element>
constexpr void fill(decode_groups_kernel* (&to)[2]) {
  to[0] = &decode_groups<Scale, Element, output::float32>;
  to[1] = &decode_groups<Scale, Element, output::bfloat16>;
}

constexpr kernel_table make_table() {
  kernel_table t{};
  t.isa = PRISMAQUANT_TARGET_NAME;
  fill<nvfp4_scale, e2m1_lanes>(t.nvfp4_amax);
  fill<e8m0_lanes<e2m1_lanes>, e2m1_lanes>(t.mxfp4_amax);
  fill<e8m0_lanes<e4m3_lanes>, e4m3_lanes>(t.mxfp8_e4m3_amax);
  fill<nvfp4_scale, e2m1_lanes>(t.nvfp4_decode);
  fill<e8m0_lanes<e2m1_lanes>, e2m1_lanes>(t.mxfp4_decode);
  fill<e8m0_lanes<e4m3_lanes>, e4m3_lanes>(t.mxfp8_e4m3_decode);
  t.largest[0] = &largest<input::float32>;
  t.largest[1] = &largest<input::bfloat16>;
  t.largest[2] = &largest<input::float16>;
  t.fp8_e4m3[0] = &encode_scaled<e4m3_lanes, input::float32>;
  t.fp8_e4m3[1] = &encode_scaled<e4m3_lanes, input::bfloat16>;
  t.fp8_e4m3[2] = &encode_scaled<e4m3_lanes, input::float16>;
  t.bf16[0] = &encode_bf16<input::float32>;
  t.bf16[1] = &encode_bf16<input::bfloat16>;
  t.bf16[2] = &encode_bf16<input::float16>;
  t.fp8_e4m3_decode[0] = &decode_scaled<e4m3_lanes, output::float32>;
  t.fp8_e4m3_decode[1] = &decode_scaled<e4m3_lanes, output::bfloat16>;
  t.bf16_decode[0] = &decode_bf16<output::float32>;
  t.bf16_decode[1] = &decode_bf16<output::bfloat16>;
  return t;
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
