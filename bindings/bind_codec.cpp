#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <vector>

#include "bind.hpp"
#include "executor.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "quantized_arg.hpp"
#include "tensor_arg.hpp"

namespace prismaquant::bindings {
namespace py = pybind11;

namespace {

// Copies what the caller gave to where the codec looks for it.
template <class T>
void copy_given(matrix_view<T const> given, matrix_view<T> out, char const* name) {
  detail::require_shape(name, given, out.rows, out.columns);
  for (std::size_t r = 0; r < out.rows; ++r) {
    for (std::size_t c = 0; c < out.columns; ++c) out(r, c) = given(r, c);
  }
}

record encode_any(tensor_object const& weight, std::string const& format_name, std::string const& rule_name,
                  std::optional<float> global_scale, std::size_t threads, std::optional<py::array> const& importance,
                  bool saturate, std::optional<py::array> const& scales, std::optional<py::array> const& extra) {
  auto const arg = tensor_arg::borrow(weight, "weight");
  encode_options const options{importance_arg(importance), saturate};
  record result;
  visit_format(format_name, [&]<format F>(F) {
    visit_scale_rule<F>(rule_name, [&]<scale_rule Rule>(Rule) {
      quantized_arrays<F> out(arg.rows, arg.columns, 1.0f);
      if constexpr (std::same_as<Rule, given_rule>) {
        if constexpr (has_scales<F>) copy_given(scales_arg<F>(scales), out.view.scales, "scales");
        if constexpr (has_extra<F>) copy_given(extra_arg<F>(extra), out.view.extra, "extra");
      }
      {
        py::gil_scoped_release const release;
        arg.visit([&](auto weights) {
          out.view.global_scale = global_scale_or_own<F, Rule>(global_scale, weights);
          encode_into<F, Rule>(weights, out.view, module_executor(threads), options);
        });
      }
      result = out.fields();
    });
  });
  return result;
}

void decode_any(py::array const& codes, std::optional<py::array> const& scales, std::string const& format_name,
                float global_scale, tensor_object const& out, std::size_t threads,
                std::optional<py::array> const& extra) {
  auto const arg = tensor_arg::borrow_writable(out, "out");
  visit_format(format_name, [&]<format F>(F) {
    auto const quantized = quantized_arg<F>(codes, scales, extra, arg.rows, arg.columns, global_scale);
    py::gil_scoped_release const release;
    arg.visit_writable([&](auto values) { decode<F>(quantized, values, module_executor(threads)); });
  });
}

}  // namespace

void bind_codec(py::module_& m) {
  m.def(
      "list_scale_rules",
      [](std::string const& format_name) {
        std::vector<std::string> names;
        visit_format(format_name, [&]<format F>(F) {
          for_each_named<scale_rule_list>([&]<scale_rule R>(R) {
            if (R::template applies<F>) names.emplace_back(R::name);
          });
        });
        return names;
      },
      py::arg("format"), "Names of the scale rules that a format takes.");
  m.def("encode", &encode_any, py::arg("weight"), py::arg("format"), py::arg("scale_rule"), py::arg("global_scale"),
        py::arg("threads"), py::arg("importance") = py::none(), py::arg("saturate") = false,
        py::arg("scales") = py::none(), py::arg("extra") = py::none(),
        "Fields of a Quantized. global_scale None: the matrix' own, where the format has one. threads 0: all.");
  m.def("decode", &decode_any, py::arg("codes"), py::arg("scales"), py::arg("format"), py::arg("global_scale"),
        py::arg("out"), py::arg("threads"), py::arg("extra") = py::none(),
        "Decodes into `out`, a writable tensor of the matrix's shape.");
}

}  // namespace prismaquant::bindings
