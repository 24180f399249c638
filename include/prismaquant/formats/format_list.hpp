/// @file
/// The one list of formats. Everything that goes over all formats (Python names, tests, tables) goes over this list.
#pragma once

#include <string_view>
#include <tuple>

#include "prismaquant/core/named_list.hpp"
#include "prismaquant/formats/bf16.hpp"
#include "prismaquant/formats/fp8.hpp"
#include "prismaquant/formats/mxfp4.hpp"
#include "prismaquant/formats/mxfp8.hpp"
#include "prismaquant/formats/nvfp4.hpp"

namespace prismaquant {

using format_list = std::tuple<nvfp4, mxfp4, mxfp8_e4m3, fp8_e4m3_channel, fp8_e4m3_tensor, fp8_e4m3_block, bf16>;

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
