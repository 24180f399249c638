#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "bind.hpp"
#include "executor.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "prismaquant/solver/solver_list.hpp"
#include "quantized_arg.hpp"
#include "tensor_arg.hpp"

namespace prismaquant::bindings {
namespace py = pybind11;

namespace {

// As `visit_solver`, of those that need the weights alone.
template <class Visitor>
void visit_data_free(std::string const& name, Visitor&& visitor) {
  visit_solver(name, [&]<solver S>(S chosen) {
    if constexpr (data_free_solver<S>) {
      visitor(chosen);
    } else {
      throw format_error("solver '" + name + "' needs statistics of the inputs");
    }
  });
}

record solve_any(tensor_object const& weight, std::string const& format_name, std::string const& solver_name,
                 std::optional<float> global_scale, std::size_t threads) {
  auto const arg = tensor_arg::borrow(weight, "weight");
  record result;
  visit_format(format_name, [&]<format F>(F) {
    visit_data_free(solver_name, [&]<data_free_solver S>(S) {
      quantized_arrays<F> out(arg.rows, arg.columns, 1.0f);
      solve_report report;
      {
        py::gil_scoped_release const release;
        arg.visit([&]<class T>(matrix_view<T const> weights) {
          out.view.global_scale = global_scale
                                      ? *global_scale
                                      : shared_global_scale<S, F>(largest_magnitude(weights, module_executor(threads)));
          report = solve_into<S, F>(weights, out.view, module_executor(threads));
        });
      }
      result = out.fields();
      result["squared_error"] = report.squared_error;
    });
  });
  return result;
}

std::optional<float> shared_global_scale_any(std::vector<tensor_object> const& weights, std::string const& format_name,
                                             std::string const& solver_name) {
  std::optional<float> result;
  visit_format(format_name, [&]<format F>(F) {
    visit_data_free(solver_name, [&]<data_free_solver S>(S) {
      if constexpr (F::has_global_scale) {
        float amax = 0.0f;
        for (std::size_t i = 0; i < weights.size(); ++i) {
          std::string const name = "weights[" + std::to_string(i) + "]";
          auto const arg = tensor_arg::borrow(weights[i], name);
          py::gil_scoped_release const release;
          arg.visit([&](auto one) {
            float const own = largest_magnitude(one, module_executor(0));
            if (!is_finite(own)) require_finite(name, one);
            amax = std::max(amax, own);
          });
        }
        result = shared_global_scale<S, F>(amax);
      }
    });
  });
  return result;
}

}  // namespace

void bind_solver(py::module_& m) {
  m.def(
      "list_solvers",
      [] {
        std::vector<std::string> names;
        for_each_solver([&]<solver S>(S) {
          if (data_free_solver<S>) names.emplace_back(S::name);
        });
        return names;
      },
      "Names of all solvers.");
  m.def("solve", &solve_any, py::arg("weight"), py::arg("format"), py::arg("solver"), py::arg("global_scale"),
        py::arg("threads"), "Fields of a Quantized, and its squared error.");
  m.def("shared_global_scale", &shared_global_scale_any, py::arg("weights"), py::arg("format"), py::arg("solver"),
        "The global scale (a divisor) of fused siblings; None where the format has none.");
}

}  // namespace prismaquant::bindings
