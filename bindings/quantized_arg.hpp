// Codes, scales and extra words between numpy arrays and quantized views.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <string>

#include "bind.hpp"
#include "prismaquant/codec/codec.hpp"
#include "tensor_arg.hpp"

namespace prismaquant::bindings {

template <format F>
inline constexpr bool has_extra = !std::same_as<typename F::extra, no_extra>;

// Fresh numpy arrays for the codes, scales and extra words of a matrix, and the view that a codec writes through.
template <format F>
struct quantized_arrays {
  using word = typename F::layout::word;
  using scale_code = typename F::scale::code_type;
  using extra_word = typename F::extra::word;

  quantized_arrays(std::size_t rows, std::size_t columns, float global_scale)
      : shape(stored<F>(rows, columns)),
        codes({shape.code_rows, shape.code_columns}),
        scales({shape.scale_rows, shape.scale_columns}),
        extra({shape.extra_rows, shape.extra_columns}),
        view{rows, columns, over(codes), over(scales), global_scale, over(extra)} {}

  // The fields of the Python dataclass `Quantized`, but for the name of the format.
  record fields() const {
    record result;
    result["shape"] = py::make_tuple(view.rows, view.columns);
    result["codes"] = codes;
    result["scales"] = has_scales<F> ? py::object(scales) : py::none();
    result["global_scale"] = F::has_global_scale ? py::object(py::float_(view.global_scale)) : py::none();
    result["extra"] = has_extra<F> ? py::object(extra) : py::none();
    return result;
  }

  storage_shape shape;
  py::array_t<word> codes;
  py::array_t<scale_code> scales;
  py::array_t<extra_word> extra;
  quantized_view<F> view;

 private:
  template <class T>
  static matrix_view<T> over(py::array_t<T>& array) {
    return {array.mutable_data(), static_cast<std::size_t>(array.shape(0)), static_cast<std::size_t>(array.shape(1)),
            static_cast<std::ptrdiff_t>(array.shape(1)), 1};
  }
};

// A view of codes, scales and extra words that Python holds, to be read or (not Const) written; shapes are checked by
// the codec.
template <format F, bool Const = true>
basic_quantized_view<F, Const> quantized_arg(py::array const& codes, std::optional<py::array> const& scales,
                                             std::optional<py::array> const& extra, std::size_t rows,
                                             std::size_t columns, float global_scale) {
  using view = basic_quantized_view<F, Const>;
  view q{rows, columns, array_view<typename view::word>(codes, "codes"), {}, global_scale, {}};
  if constexpr (has_scales<F>) {
    if (!scales) throw shape_error("scales: None was given, but " + std::string(F::name) + " has block scales");
    q.scales = array_view<typename view::scale_code>(*scales, "scales");
  }
  if constexpr (has_extra<F>) {
    if (!extra) {
      throw shape_error("extra: None was given, but " + std::string(F::name) + " has " + std::string(F::extra::name));
    }
    q.extra = array_view<typename view::extra_word>(*extra, "extra");
  }
  return q;
}

// The global scale that the caller gave, or else the matrix' own, from its largest finite magnitude.
template <format F, scale_rule Rule, weight_type T, executor Executor>
float global_scale_or_own(std::optional<float> given, matrix_view<T const> weights, Executor&& executor) {
  if (given) return *given;
  if constexpr (F::has_global_scale) {
    float const amax = largest_magnitude(weights, executor);
    return global_scale_for<Rule, F>(is_finite(amax) ? amax : finite_amax(weights));
  }
  return 1.0f;
}

// One non-negative number per element, or none.
inline matrix_view<float const> importance_arg(std::optional<py::array> const& importance) {
  return importance ? array_view<float const>(*importance, "weights") : matrix_view<float const>{};
}

}  // namespace prismaquant::bindings
