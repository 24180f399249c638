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

std::optional<float> encode_any(tensor_object const& weight, std::string const& format_name,
                                std::string const& rule_name, std::optional<float> global_scale, std::size_t threads,
                                py::array const& codes, std::optional<py::array> const& scales,
                                std::optional<py::array> const& extra, std::optional<py::array> const& importance,
                                bool saturate) {
  auto const arg = tensor_arg::borrow(weight, "weight");
  encode_options const options{importance_arg(importance), saturate};
  std::optional<float> used;
  visit_format(format_name, [&]<format F>(F) {
    auto out = quantized_arg<F, false>(codes, scales, extra, arg.rows, arg.columns, 1.0f);
    visit_scale_rule<F>(rule_name, [&]<scale_rule Rule>(Rule) {
      py::gil_scoped_release const release;
      arg.visit([&](auto weights) {
        out.global_scale = global_scale_or_own<F, Rule>(global_scale, weights, module_executor(threads));
        encode_into<F, Rule>(weights, out, module_executor(threads), options);
      });
    });
    if (F::has_global_scale) used = out.global_scale;
  });
  return used;
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
        py::arg("threads"), py::arg("codes"), py::arg("scales"), py::arg("extra"), py::arg("importance") = py::none(),
        py::arg("saturate") = false,
        "Encodes into codes, scales and extra (see `storage`); returns the global scale used, None if there is none.");
  m.def("decode", &decode_any, py::arg("codes"), py::arg("scales"), py::arg("format"), py::arg("global_scale"),
        py::arg("out"), py::arg("threads"), py::arg("extra") = py::none(),
        "Decodes into `out`, a writable tensor of the matrix's shape.");
}

}  // namespace prismaquant::bindings
