#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bind.hpp"
#include "prismaquant/allocator/constrained.hpp"
#include "prismaquant/allocator/frontier.hpp"
#include "prismaquant/allocator/knapsack.hpp"
#include "prismaquant/allocator/sweep.hpp"

namespace prismaquant::bindings {
namespace py = pybind11;

namespace {

// One list per item, one number per candidate.
template <class T>
using nested = std::vector<std::vector<T>>;

std::vector<allocation_item> items_of(nested<std::int64_t> const& bytes, nested<double> const& losses) {
  if (bytes.size() != losses.size()) {
    throw shape_error("bytes has " + std::to_string(bytes.size()) + " items, losses has " +
                      std::to_string(losses.size()));
  }
  std::vector<allocation_item> items(bytes.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (bytes[i].size() != losses[i].size()) {
      throw shape_error("item " + std::to_string(i) + ": bytes and losses differ in length");
    }
    items[i].candidates.reserve(bytes[i].size());
    for (std::size_t j = 0; j < bytes[i].size(); ++j) items[i].candidates.push_back({bytes[i][j], losses[i][j]});
  }
  return items;
}

record allocate_exactly(nested<std::int64_t> const& bytes, nested<double> const& losses, std::int64_t budget) {
  auto const items = items_of(bytes, losses);
  allocation found;
  {
    py::gil_scoped_release const release;
    found = allocate(items, budget);
  }
  record result;
  result["choice"] = found.choice;
  result["bytes"] = found.bytes;
  result["loss"] = found.loss;
  result["lower_bound"] = found.lower_bound;
  result["tolerance"] = found.tolerance;
  return result;
}

record allocate_constrained(nested<std::int64_t> const& bytes, nested<double> const& losses, std::int64_t budget,
                            std::vector<std::pair<nested<std::int64_t>, std::int64_t>> const& constraints) {
  auto const items = items_of(bytes, losses);
  std::vector<linear_constraint> limits;
  for (auto const& [uses, limit] : constraints) {
    auto& flat = limits.emplace_back();
    flat.limit = limit;
    for (auto const& item : uses) flat.uses.insert(flat.uses.end(), item.begin(), item.end());
  }
  constrained_allocation found;
  {
    py::gil_scoped_release const release;
    found = allocate(items, budget, limits);
  }
  record result;
  result["choice"] = found.choice;
  result["bytes"] = found.bytes;
  result["uses"] = found.uses;
  result["loss"] = found.loss;
  result["lower_bound"] = found.lower_bound;
  return result;
}

std::vector<std::pair<std::int64_t, double>> frontier_of(nested<std::int64_t> const& bytes,
                                                         nested<double> const& losses) {
  auto const items = items_of(bytes, losses);
  std::vector<frontier_point> found;
  {
    py::gil_scoped_release const release;
    found = frontier(items);
  }
  std::vector<std::pair<std::int64_t, double>> points;
  points.reserve(found.size());
  for (auto const& point : found) points.emplace_back(point.bytes, point.loss);
  return points;
}

// For each budget, what `allocate` finds, without the choices: bytes, loss, lower bound and tolerance.
std::vector<std::tuple<std::int64_t, double, double, double>> sweep_of(nested<std::int64_t> const& bytes,
                                                                       nested<double> const& losses,
                                                                       std::vector<std::int64_t> const& budgets) {
  auto const items = items_of(bytes, losses);
  std::vector<allocation> found;
  {
    py::gil_scoped_release const release;
    found = sweep(items, budgets);
  }
  std::vector<std::tuple<std::int64_t, double, double, double>> points;
  for (auto const& each : found) points.emplace_back(each.bytes, each.loss, each.lower_bound, each.tolerance);
  return points;
}

}  // namespace

void bind_allocator(py::module_& m) {
  m.def("allocate", &allocate_exactly, py::arg("bytes"), py::arg("losses"), py::arg("budget"),
        "Exact multiple-choice knapsack: one candidate per item, least total loss within the byte budget.");
  m.def("allocate_constrained", &allocate_constrained, py::arg("bytes"), py::arg("losses"), py::arg("budget"),
        py::arg("constraints"), "The same under further limits, pairs (uses, limit), with a proven lower bound.");
  m.def("frontier", &frontier_of, py::arg("bytes"), py::arg("losses"),
        "Vertices (bytes, loss) of the lower convex hull over all choices, in increasing bytes.");
  m.def("sweep", &sweep_of, py::arg("bytes"), py::arg("losses"), py::arg("budgets"),
        "(bytes, loss, lower bound, tolerance) of the certified optimum for each of the increasing budgets.");
}

}  // namespace prismaquant::bindings
