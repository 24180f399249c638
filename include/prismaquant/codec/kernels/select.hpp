/// @file
/// Which kernel serves a format: from the table of the linked library, else the one compiled here. Null where there is
/// none: the scalar codec serves every format.
#pragma once

#include "prismaquant/codec/kernels/table.hpp"
#include "prismaquant/codec/kernels/traits.hpp"

#if defined(PRISMAQUANT_KERNEL_LIBRARY)  // defined by the CMake target prismaquant::kernels
#include "prismaquant/codec/kernels/library.hpp"
#else
#include "prismaquant/codec/kernels/choose.hpp"
#include "prismaquant/codec/kernels/decode.hpp"
#include "prismaquant/codec/kernels/encode.hpp"
#include "prismaquant/codec/kernels/errors.hpp"
#endif

namespace prismaquant::detail {

#if defined(PRISMAQUANT_KERNEL_LIBRARY)

/// The active kernels of `F`; none for a format that is not in the list.
template <class F>
format_kernels const& kernels_of() {
  constexpr std::size_t place = place_in<F, format_list>;
  if constexpr (place < std::tuple_size_v<format_list>) {
    return active_kernels().formats[place];
  } else {
    static constexpr format_kernels none;
    return none;
  }
}

template <class F, class Rule, class T>
choose_scales_kernel* scale_chooser() {
  return kernels_of<F>().choose[place_in<Rule, scale_rule_list>][weight_type_index<T>];
}
template <class F, class T>
encode_groups_kernel* groups_encoder() {
  return kernels_of<F>().encode[weight_type_index<T>];
}
template <class F, class T>
decode_groups_kernel* groups_decoder() {
  return kernels_of<F>().decode[weight_type_index<T>];
}
template <class F, class T>
encode_run_kernel* run_encoder() {
  return kernels_of<F>().encode_run[weight_type_index<T>];
}
template <class F, class T>
decode_run_kernel* run_decoder() {
  return kernels_of<F>().decode_run[weight_type_index<T>];
}
template <class T>
largest_kernel* largest_finder() {
  return active_kernels().largest[weight_type_index<T>];
}
template <class T>
add_errors_kernel* errors_adder() {
  return active_kernels().add_errors[weight_type_index<T>];
}

#elif defined(PRISMAQUANT_HAS_VECTORS)

template <class T>
inline constexpr auto input_of = static_cast<PRISMAQUANT_TARGET::input>(weight_type_index<T>);
template <class T>
inline constexpr auto output_of = static_cast<PRISMAQUANT_TARGET::output>(weight_type_index<T>);

template <class F, class Rule, class T>
choose_scales_kernel* scale_chooser() {
  return &PRISMAQUANT_TARGET::choose_scales<F, chosen_by<F, Rule>, input_of<T>>;
}
template <class F, class T>
encode_groups_kernel* groups_encoder() {
  return &PRISMAQUANT_TARGET::encode_groups<F, input_of<T>>;
}
template <class F, class T>
decode_groups_kernel* groups_decoder() {
  return &PRISMAQUANT_TARGET::decode_groups<F, output_of<T>>;
}
template <class F, class T>
encode_run_kernel* run_encoder() {
  return &PRISMAQUANT_TARGET::encode_run<run_of<F>, input_of<T>>;
}
template <class F, class T>
decode_run_kernel* run_decoder() {
  return &PRISMAQUANT_TARGET::decode_run<run_of<F>, output_of<T>>;
}
template <class T>
largest_kernel* largest_finder() {
  return &PRISMAQUANT_TARGET::largest<input_of<T>>;
}
template <class T>
add_errors_kernel* errors_adder() {
  return &PRISMAQUANT_TARGET::add_errors<input_of<T>>;
}

#else

template <class F, class Rule, class T>
choose_scales_kernel* scale_chooser() {
  return nullptr;
}
template <class F, class T>
encode_groups_kernel* groups_encoder() {
  return nullptr;
}
template <class F, class T>
decode_groups_kernel* groups_decoder() {
  return nullptr;
}
template <class F, class T>
encode_run_kernel* run_encoder() {
  return nullptr;
}
template <class F, class T>
decode_run_kernel* run_decoder() {
  return nullptr;
}
template <class T>
largest_kernel* largest_finder() {
  return nullptr;
}
template <class T>
add_errors_kernel* errors_adder() {
  return nullptr;
}

#endif

}  // namespace prismaquant::detail
