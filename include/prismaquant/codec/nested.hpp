/// @file
/// The codec functions for formats whose block scales are stored quantized: those of the format underneath, with the
/// scales packed after encoding and unpacked before decoding.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "prismaquant/codec/codec.hpp"

namespace prismaquant {

namespace detail {

/// The block scales of a nested matrix, decoded, and a view of the matrix in the base format.
template <nested_format F>
class unnested {
 public:
  using base = typename F::base;

  explicit unnested(const_quantized_view<F> q) : q_(q), scales_(q.scales.rows * q.scales.columns) {
    std::vector<float> extra(q.extra.columns);
    for (std::size_t c = 0; c < extra.size(); ++c) extra[c] = q.extra(0, c);
    for (std::size_t i = 0; i < scales_.size(); ++i) {
      scales_[i] = F::unnest(i, q.scales(i / q.scales.columns, i % q.scales.columns), extra.data());
    }
  }
  const_quantized_view<base> view() const {
    return {q_.rows,         q_.columns,
            q_.codes,        prismaquant::view(std::span<float const>(scales_), q_.scales.rows, q_.scales.columns),
            q_.global_scale, {}};
  }

 private:
  const_quantized_view<F> q_;
  std::vector<float> scales_;
};

}  // namespace detail

template <nested_format F, scale_rule Rule = amax_rule, weight_type T, executor Executor>
void encode_into(matrix_view<T const> weights, quantized_view<F> out, Executor&& executor,
                 encode_options const& options = {}) {
  static_assert(Rule::template applies<F>, "this scale rule is not for this format");
  using base = typename F::base;
  out.validate();
  std::vector<float> scales(out.scales.rows * out.scales.columns);
  quantized_view<base> const plain{
      out.rows,         out.columns, out.codes, view(std::span<float>(scales), out.scales.rows, out.scales.columns),
      out.global_scale, {}};
  encode_into<base, Rule>(weights, plain, executor, options);
  fp_environment_guard const guard;
  std::vector<std::uint8_t> codes(scales.size());
  std::vector<float> extra(out.extra.columns);
  F::nest(scales.data(), scales.size(), codes.data(), extra.data());
  for (std::size_t i = 0; i < codes.size(); ++i) out.scales(i / out.scales.columns, i % out.scales.columns) = codes[i];
  for (std::size_t c = 0; c < extra.size(); ++c) out.extra(0, c) = extra[c];
}

template <nested_format F, weight_type Out, executor Executor = serial_executor>
void decode(const_quantized_view<F> quantized, matrix_view<Out> out, Executor&& executor = {}) {
  quantized.validate();
  fp_environment_guard const guard;
  detail::unnested<F> const plain(quantized);
  decode<typename F::base>(plain.view(), out, executor);
}

template <nested_format F, weight_type T, executor Executor = serial_executor>
error_summary error_of(matrix_view<T const> weights, const_quantized_view<F> quantized, Executor&& executor = {}) {
  quantized.validate();
  fp_environment_guard const guard;
  detail::unnested<F> const plain(quantized);
  return error_of<typename F::base>(weights, plain.view(), executor);
}

}  // namespace prismaquant
