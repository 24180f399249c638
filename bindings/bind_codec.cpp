#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <tuple>

#include "bind.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "quantized_arg.hpp"
#include "tensor_arg.hpp"

namespace prismaquant::bindings {
namespace py = pybind11;

namespace {

using rule_list = std::tuple<amax_rule, sweep_rule>;

record encode_any(tensor_object const& weight, std::string const& format_name, std::string const& rule_name,
                  std::optional<float> global_scale, std::size_t threads) {
  auto const arg = tensor_arg::borrow(weight, "weight");
  record result;
  visit_format(format_name, [&]<format F>(F) {
    visit_named<rule_list>("scale rule", rule_name, [&]<scale_rule Rule>(Rule) {
      quantized_arrays<F> out(arg.rows, arg.columns, global_scale.value_or(1.0f));
      {
        py::gil_scoped_release const release;
        arg.visit([&](auto weights) {
          if constexpr (F::has_global_scale) {
            if (!global_scale) out.view.global_scale = F::global_scale(block_amax(weights), Rule::largest_block_scale);
          }
          encode_into<F, Rule>(weights, out.view, thread_executor(threads));
        });
      }
      result = out.fields();
    });
  });
  return result;
}

void decode_any(py::array const& codes, std::optional<py::array> const& scales, std::string const& format_name,
                float global_scale, tensor_object const& out, std::size_t threads) {
  auto const arg = tensor_arg::borrow(out, "out");
  if (!arg.writable) throw py::value_error("out: the array is read-only");
  if (arg.type == element_type::float16)
    throw py::type_error("out: dtype float16 is not supported; use float32 or bfloat16");
  visit_format(format_name, [&]<format F>(F) {
    auto const quantized = quantized_arg<F>(codes, scales, arg.rows, arg.columns, global_scale);
    py::gil_scoped_release const release;
    if (arg.type == element_type::float32) {
      decode<F>(quantized, arg.as<float>(), thread_executor(threads));
    } else {
      decode<F>(quantized, arg.as<bfloat16>(), thread_executor(threads));
    }
  });
}

double squared_error_any(tensor_object const& weight, py::array const& codes, std::optional<py::array> const& scales,
                         std::string const& format_name, float global_scale, std::size_t threads) {
  auto const arg = tensor_arg::borrow(weight, "weight");
  double sum = 0.0;
  visit_format(format_name, [&]<format F>(F) {
    auto const quantized = quantized_arg<F>(codes, scales, arg.rows, arg.columns, global_scale);
    py::gil_scoped_release const release;
    arg.visit([&](auto weights) { sum = squared_error<F>(weights, quantized, thread_executor(threads)); });
  });
  return sum;
}

}  // namespace

void bind_codec(py::module_& m) {
  m.def("encode", &encode_any, py::arg("weight"), py::arg("format"), py::arg("scale_rule"), py::arg("global_scale"),
        py::arg("threads"),
        "Fields of a Quantized. global_scale None: the matrix' own, where the format has one. threads 0: all.");
  m.def("decode", &decode_any, py::arg("codes"), py::arg("scales"), py::arg("format"), py::arg("global_scale"),
        py::arg("out"), py::arg("threads"),
        "Decodes into `out`, a writable float32 or bfloat16 tensor of the matrix's shape.");
  m.def("squared_error", &squared_error_any, py::arg("weight"), py::arg("codes"), py::arg("scales"), py::arg("format"),
        py::arg("global_scale"), py::arg("threads"), "Sum of (decoded - weight)^2.");
}

}  // namespace prismaquant::bindings
