/// @file
/// The kernels of the instruction set that this translation unit is compiled for: one at a time, and all as a table.
#pragma once

#include "prismaquant/codec/kernels/choose.hpp"
#include "prismaquant/codec/kernels/decode.hpp"
#include "prismaquant/codec/kernels/encode.hpp"
#include "prismaquant/codec/kernels/errors.hpp"
#include "prismaquant/codec/kernels/table.hpp"
#include "prismaquant/codec/kernels/traits.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

template <class F, input In>
constexpr void fill(format_kernels& t) {
  constexpr auto i = static_cast<std::size_t>(In);
  constexpr auto Out = static_cast<output>(In);
  if constexpr (detail::in_groups<F>) {
    [&]<class... Rules>(std::type_identity<std::tuple<Rules...>>) {
      (
          [&] {
            if constexpr (detail::chooses<F, Rules>) {
              t.choose[place_in<Rules, scale_rule_list>][i] = &choose_scales<F, detail::chosen_by<F, Rules>, In>;
            }
          }(),
          ...);
    }(std::type_identity<scale_rule_list>{});
    t.encode[i] = &encode_groups<F, In>;
    t.decode[i] = &decode_groups<F, Out>;
  } else if constexpr (detail::in_runs<F>) {
    t.encode_run[i] = &encode_run<detail::run_of<F>, In>;
    t.decode_run[i] = &decode_run<detail::run_of<F>, Out>;
  }
}

template <input In>
constexpr void fill(kernel_table& t) {
  constexpr auto i = static_cast<std::size_t>(In);
  [&]<class... Formats>(std::type_identity<std::tuple<Formats...>>) {
    (fill<Formats, In>(t.formats[place_in<Formats, format_list>]), ...);
  }(std::type_identity<format_list>{});
  t.largest[i] = &largest<In>;
  t.add_errors[i] = &add_errors<In>;
}

constexpr kernel_table make_table() {
  kernel_table t{};
  t.isa = PRISMAQUANT_TARGET_NAME;
  fill<input::float32>(t);
  fill<input::bfloat16>(t);
  fill<input::float16>(t);
  return t;
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
