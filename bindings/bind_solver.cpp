#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "bind.hpp"
#include "executor.hpp"
#include "linalg_arg.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "prismaquant/solver/chain.hpp"
#include "quantized_arg.hpp"
#include "stage_arg.hpp"
#include "tensor_arg.hpp"

namespace prismaquant::bindings {
namespace py = pybind11;

namespace {

// The name of a preset, or stages.
using chain_object = std::variant<std::string, std::vector<stage_object>>;
using statistic_object = std::optional<tensor_object>;

template <format F>
std::vector<stage> chain_arg(chain_object const& given, solve_context const& context) {
  if (auto const* const name = std::get_if<std::string>(&given)) return stages_for<F>(*name, context);
  std::vector<stage> stages;
  for (auto const& one : std::get<std::vector<stage_object>>(given)) stages.push_back(stage_arg(one));
  return stages;
}

// A statistic in float32, whose memory `held` keeps.
matrix_view<float const> statistic_arg(statistic_object const& given, char const* name, std::vector<tensor_arg>& held) {
  if (!given) return {};
  auto const& arg = held.emplace_back(tensor_arg::borrow(*given, name));
  if (arg.type != element_type::float32) throw py::type_error(std::string(name) + ": expected float32");
  return arg.as<float const>();
}

// Whether an encoder alone can do it, in place: a working state of the matrix in float32 is not needed.
bool is_encoding(std::vector<stage> const& stages, solve_context const& context) {
  if (stages.size() != 1 || context.gram.data != nullptr || context.importance.data != nullptr) return false;
  auto const* const sweep = std::get_if<scale_sweep>(&stages.front());
  return std::holds_alternative<rtn>(stages.front()) || (sweep != nullptr && !sweep->four_over_six);
}

template <format F, weight_type T>
solve_report encode_alone(stage const& only, matrix_view<T const> weights, std::optional<float> global_scale,
                          quantized_view<F>& out, module_executor const& executor) {
  auto const start = std::chrono::steady_clock::now();
  solve_report report;
  std::visit(
      [&]<solver S>(S const&) {
        if constexpr (data_free_solver<S>) {
          out.global_scale =
              global_scale ? *global_scale : shared_global_scale<S, F>(largest_magnitude(weights, executor));
          report = solve_into<S, F>(weights, out, executor);
        }
      },
      only);
  stage_report& stage = report.stages.emplace_back();
  stage.name = report.solver;
  stage.after = report.squared_error;
  stage.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

template <format F, weight_type T>
solve_report solve_chain(std::vector<stage> const& stages, matrix_view<T const> weights, solve_context const& context,
                         quantized_view<F>& out, lapack_backend const& linalg, module_executor const& executor) {
  auto const solved = solve<F>(weights, context, std::span<stage const>(stages), linalg, executor);
  std::copy(solved.quantized.codes().begin(), solved.quantized.codes().end(), out.codes.data);
  std::copy(solved.quantized.scales().begin(), solved.quantized.scales().end(), out.scales.data);
  std::copy(solved.quantized.extra().begin(), solved.quantized.extra().end(), out.extra.data);
  out.global_scale = solved.quantized.global_scale();
  return solved.report;
}

record to_record(stage_report const& stage) {
  record result;
  result["name"] = stage.name;
  result["before"] = stage.before;
  result["after"] = stage.after;
  result["damping"] = stage.damping;
  result["output_damping"] = stage.output_damping;
  result["retries"] = stage.retries;
  result["passes"] = stage.passes;
  result["changed"] = stage.changed;
  result["rows_kept"] = stage.rows_kept;
  result["seconds"] = stage.seconds;
  return result;
}

record solve_any(tensor_object const& weight, std::string const& format_name, chain_object const& stages_given,
                 std::optional<float> global_scale, statistic_object const& gram, std::size_t tokens,
                 statistic_object const& output_gram, std::size_t output_tokens, statistic_object const& cross_gram,
                 statistic_object const& pooled_gram, std::size_t pooled_tokens, statistic_object const& importance,
                 std::optional<float> damping, std::optional<float> output_damping, std::size_t memory_limit,
                 std::map<std::string, py::capsule> const& linalg_given, std::size_t threads) {
  auto const arg = tensor_arg::borrow(weight, "weight");
  std::vector<tensor_arg> held;
  solve_context const context{.global_scale = global_scale,
                              .gram = statistic_arg(gram, "gram", held),
                              .tokens = tokens,
                              .output_gram = statistic_arg(output_gram, "output_gram", held),
                              .output_tokens = output_tokens,
                              .cross_gram = statistic_arg(cross_gram, "cross_gram", held),
                              .pooled_gram = statistic_arg(pooled_gram, "pooled_gram", held),
                              .pooled_tokens = pooled_tokens,
                              .importance = statistic_arg(importance, "importance", held),
                              .damping = damping,
                              .output_damping = output_damping,
                              .memory_limit = memory_limit};
  auto const linalg = linalg_arg(linalg_given);
  if ((context.gram.data != nullptr || context.pooled_gram.data != nullptr) && linalg.sgemm == nullptr) {
    throw py::type_error("linalg: is empty, and solvers that use a Gram multiply by it");
  }
  record result;
  visit_format(format_name, [&]<format F>(F) {
    auto const stages = chain_arg<F>(stages_given, context);
    quantized_arrays<F> out(arg.rows, arg.columns, 1.0f);
    solve_report report;
    {
      py::gil_scoped_release const release;
      module_executor const executor(threads);
      arg.visit([&]<class T>(matrix_view<T const> weights) {
        report = is_encoding(stages, context)
                     ? encode_alone<F>(stages.front(), weights, global_scale, out.view, executor)
                     : solve_chain<F>(stages, weights, context, out.view, linalg, executor);
      });
    }
    result = out.fields();
    py::list of_stages;
    for (auto const& stage : report.stages) of_stages.append(to_record(stage));
    result["squared_error"] = report.squared_error;
    result["dead_columns"] = report.dead_columns;
    result["stages"] = of_stages;
  });
  return result;
}

std::optional<float> shared_global_scale_any(std::vector<tensor_object> const& weights, std::string const& format_name,
                                             chain_object const& stages_given) {
  std::optional<float> result;
  visit_format(format_name, [&]<format F>(F) {
    auto const stages = chain_arg<F>(stages_given, {});
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
      result = shared_global_scale<F>(std::span<stage const>(stages), amax);
    }
  });
  return result;
}

std::vector<record> list_presets() {
  std::vector<record> presets;
  for (auto const& preset : solver_presets()) {
    std::vector<stage_object> stages;
    bool needs_gram = false;
    for (auto const& s : preset.stages) {
      stages.push_back(to_object(s));
      needs_gram = needs_gram || detail::needs_of(s).gram;
    }
    record& one = presets.emplace_back();
    one["name"] = preset.name;
    one["what"] = preset.what;
    one["cost"] = preset.cost;
    one["peak_memory"] = preset.peak_memory;
    one["needs_gram"] = needs_gram;
    one["stages"] = stages;
  }
  return presets;
}

}  // namespace

void bind_solver(py::module_& m) {
  m.def(
      "list_solvers",
      [] {
        std::vector<stage_object> solvers;
        for_each_solver([&]<solver S>(S const& chosen) { solvers.push_back(to_object(chosen)); });
        return solvers;
      },
      "Names of all solvers, each with its options as they are by default.");
  m.def("list_presets", &list_presets, "The presets, cheapest first.");
  m.def("solve", &solve_any, py::arg("weight"), py::arg("format"), py::arg("stages"), py::kw_only(),
        py::arg("global_scale"), py::arg("gram"), py::arg("tokens"), py::arg("output_gram"), py::arg("output_tokens"),
        py::arg("cross_gram"), py::arg("pooled_gram"), py::arg("pooled_tokens"), py::arg("importance"),
        py::arg("damping"), py::arg("output_damping"), py::arg("memory_limit"), py::arg("linalg"), py::arg("threads"),
        "Fields of a Quantized and of its report. Statistics are float32; counts and limits of 0 stand for none.");
  m.def("shared_global_scale", &shared_global_scale_any, py::arg("weights"), py::arg("format"), py::arg("stages"),
        "The global scale (a divisor) of fused siblings; None where the format has none.");
}

}  // namespace prismaquant::bindings
