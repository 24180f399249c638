#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "bind.hpp"
#include "executor.hpp"
#include "prismaquant/codec/roundtrip.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "quantized_arg.hpp"
#include "tensor_arg.hpp"

namespace prismaquant::bindings {
namespace py = pybind11;

namespace {

record as_record(error_summary const& found) {
  record result;
  result["squared_error"] = found.squared_error;
  result["squared_weight"] = found.squared_weight;
  result["max_error"] = found.max_error;
  result["snr_db"] = found.snr_db();
  return result;
}

// Calls run.template operator()<F, Rule>() for a rule that chooses.
template <class Run>
void visit_choosing(std::string const& format_name, std::string const& rule_name, Run&& run) {
  visit_format(format_name, [&]<format F>(F) {
    visit_scale_rule<F>(rule_name, [&]<scale_rule Rule>(Rule) {
      if constexpr (std::same_as<Rule, given_rule>) {
        throw format_error("scale rule 'given' is for encode only");
      } else {
        run.template operator()<F, Rule>();
      }
    });
  });
}

void roundtrip_any(tensor_object const& weight, std::string const& format_name, std::string const& rule_name,
                   std::optional<float> global_scale, std::optional<py::array> const& importance, bool saturate,
                   tensor_object const& out, std::size_t threads) {
  auto const arg = tensor_arg::borrow(weight, "weight");
  auto const target = tensor_arg::borrow_writable(out, "out");
  if (target.type != arg.type) throw py::type_error("out: its dtype is not that of weight");
  encode_options const options{importance_arg(importance), saturate};
  visit_choosing(format_name, rule_name, [&]<format F, scale_rule Rule>() {
    py::gil_scoped_release const release;
    arg.visit([&]<class T>(matrix_view<T const> weights) {
      float const divisor = global_scale_or_own<F, Rule>(global_scale, weights, module_executor(threads));
      roundtrip<F, Rule>(weights, target.as<T>(), divisor, module_executor(threads), options);
    });
  });
}

record encoding_error_any(tensor_object const& weight, std::string const& format_name, std::string const& rule_name,
                          std::optional<float> global_scale, std::optional<py::array> const& importance, bool saturate,
                          std::size_t threads) {
  auto const arg = tensor_arg::borrow(weight, "weight");
  encode_options const options{importance_arg(importance), saturate};
  error_summary found;
  visit_choosing(format_name, rule_name, [&]<format F, scale_rule Rule>() {
    py::gil_scoped_release const release;
    arg.visit([&](auto weights) {
      float const divisor = global_scale_or_own<F, Rule>(global_scale, weights, module_executor(threads));
      found = encoding_error<F, Rule>(weights, divisor, module_executor(threads), options);
    });
  });
  return as_record(found);
}

error_summary summarize(tensor_object const& weight, py::array const& codes, std::optional<py::array> const& scales,
                        std::string const& format_name, float global_scale, std::size_t threads,
                        std::optional<py::array> const& extra) {
  auto const arg = tensor_arg::borrow(weight, "weight");
  error_summary found;
  visit_format(format_name, [&]<format F>(F) {
    auto const quantized = quantized_arg<F>(codes, scales, extra, arg.rows, arg.columns, global_scale);
    py::gil_scoped_release const release;
    arg.visit([&](auto weights) { found = error_of<F>(weights, quantized, module_executor(threads)); });
  });
  return found;
}

record error_any(tensor_object const& weight, py::array const& codes, std::optional<py::array> const& scales,
                 std::string const& format_name, float global_scale, std::size_t threads,
                 std::optional<py::array> const& extra) {
  return as_record(summarize(weight, codes, scales, format_name, global_scale, threads, extra));
}

double squared_error_any(tensor_object const& weight, py::array const& codes, std::optional<py::array> const& scales,
                         std::string const& format_name, float global_scale, std::size_t threads,
                         std::optional<py::array> const& extra) {
  return summarize(weight, codes, scales, format_name, global_scale, threads, extra).squared_error;
}

void subtract_any(tensor_object const& weight, py::array const& values) {
  auto const arg = tensor_arg::borrow(weight, "weight");
  auto const out = array_view<float>(values, "values");
  detail::require_shape("values", out, arg.rows, arg.columns);
  py::gil_scoped_release const release;
  arg.visit([&](auto weights) {
    for (std::size_t r = 0; r < arg.rows; ++r) {
      for (std::size_t c = 0; c < arg.columns; ++c) out(r, c) -= static_cast<float>(weights(r, c));
    }
  });
}

}  // namespace

void bind_error(py::module_& m) {
  m.def("roundtrip", &roundtrip_any, py::arg("weight"), py::arg("format"), py::arg("scale_rule"),
        py::arg("global_scale"), py::arg("importance"), py::arg("saturate"), py::arg("out"), py::arg("threads"),
        "Decoded values of the encoded matrix, into `out`, a writable tensor of the matrix's shape and dtype.");
  m.def("encoding_error", &encoding_error_any, py::arg("weight"), py::arg("format"), py::arg("scale_rule"),
        py::arg("global_scale"), py::arg("importance"), py::arg("saturate"), py::arg("threads"),
        "The error that encoding a matrix would make.");
  m.def("error", &error_any, py::arg("weight"), py::arg("codes"), py::arg("scales"), py::arg("format"),
        py::arg("global_scale"), py::arg("threads"), py::arg("extra") = py::none(), "The error of a quantized matrix.");
  m.def("squared_error", &squared_error_any, py::arg("weight"), py::arg("codes"), py::arg("scales"), py::arg("format"),
        py::arg("global_scale"), py::arg("threads"), py::arg("extra") = py::none(), "Sum of (decoded - weight)^2.");
  m.def("subtract", &subtract_any, py::arg("weight"), py::arg("values"), "values -= weight, in float32.");
}

}  // namespace prismaquant::bindings
