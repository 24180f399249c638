/// @file
/// The one list of formats. Everything that goes over all formats (Python names, tests, tables) goes over this list.
#pragma once

#include <string_view>
#include <tuple>

#include "prismaquant/core/named_list.hpp"
#include "prismaquant/formats/bf16.hpp"
#include "prismaquant/formats/fp16.hpp"
#include "prismaquant/formats/fp8.hpp"
#include "prismaquant/formats/int4.hpp"
#include "prismaquant/formats/int8.hpp"
#include "prismaquant/formats/mxfp4.hpp"
#include "prismaquant/formats/mxfp6.hpp"
#include "prismaquant/formats/mxfp8.hpp"
#include "prismaquant/formats/mxint8.hpp"
#include "prismaquant/formats/nf4.hpp"
#include "prismaquant/formats/nvfp4.hpp"

namespace prismaquant {

using format_list = std::tuple<nvfp4, mxfp4, mxfp6_e2m3, mxfp6_e3m2, mxfp8_e4m3, mxfp8_e5m2, mxint8,         //
                               fp8_e4m3_channel, fp8_e4m3_tensor, fp8_e4m3_block, fp8_e4m3_token,            //
                               fp8_e5m2_channel, fp8_e5m2_tensor, fp8_e5m2_block, fp8_e5m2_token,            //
                               int8_channel, int8_token,                                                     //
                               int4_g32, int4_g64, int4_g128, int4_g32_asym, int4_g64_asym, int4_g128_asym,  //
                               nf4, nf4_double, bf16, fp16>;

/// Calls `visitor(F{})` for every format of the list, in its order.
template <class Visitor>
void for_each_format(Visitor&& visitor) {
  for_each_named<format_list>(visitor);
}

/// Calls `visitor(F{})` for the format called `name`.
/// @throws format_error if there is none; the message lists the known names.
template <class Visitor>
void visit_format(std::string_view name, Visitor&& visitor) {
  visit_named<format_list>("format", name, visitor);
}

}  // namespace prismaquant
