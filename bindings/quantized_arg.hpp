// Codes and scales between numpy arrays and quantized views.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <string>

#include "bind.hpp"
#include "prismaquant/codec/codec.hpp"
#include "tensor_arg.hpp"

namespace prismaquant::bindings {

// Fresh numpy arrays for the codes and scales of a matrix, and the view that a codec writes through.
template <format F>
struct quantized_arrays {
  using word = typename F::layout::word;
  using scale_code = typename F::scale::code_type;

  quantized_arrays(std::size_t rows, std::size_t columns, float global_scale)
      : shape(stored<F>(rows, columns)),
        codes({shape.code_rows, shape.code_columns}),
        scales({shape.scale_rows, shape.scale_columns}),
        view{rows, columns, over(codes), over(scales), global_scale} {}

  // The fields of the Python dataclass `Quantized`, but for the name of the format.
  record fields() const {
    record result;
    result["shape"] = py::make_tuple(view.rows, view.columns);
    result["codes"] = codes;
    result["scales"] = has_scales<F> ? py::object(scales) : py::none();
    result["global_scale"] = F::has_global_scale ? py::object(py::float_(view.global_scale)) : py::none();
    return result;
  }

  storage_shape shape;
  py::array_t<word> codes;
  py::array_t<scale_code> scales;
  quantized_view<F> view;

 private:
  template <class T>
  static matrix_view<T> over(py::array_t<T>& array) {
    return {array.mutable_data(), static_cast<std::size_t>(array.shape(0)), static_cast<std::size_t>(array.shape(1)),
            static_cast<std::ptrdiff_t>(array.shape(1)), 1};
  }
};

// A view of codes and scales that Python holds; shapes are checked by the codec.
template <format F>
const_quantized_view<F> quantized_arg(py::array const& codes, std::optional<py::array> const& scales, std::size_t rows,
                                      std::size_t columns, float global_scale) {
  const_quantized_view<F> q{rows, columns, array_view<typename F::layout::word>(codes, "codes"), {}, global_scale};
  if constexpr (has_scales<F>) {
    if (!scales) throw shape_error("scales: None was given, but " + std::string(F::name) + " has block scales");
    q.scales = array_view<typename F::scale::code_type>(*scales, "scales");
  }
  return q;
}

}  // namespace prismaquant::bindings
