#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <vector>

#include "bind.hpp"
#include "prismaquant/allocator/knapsack.hpp"

namespace prismaquant::bindings {
namespace py = pybind11;

void bind_allocator(py::module_& m) {
  m.def(
      "allocate",
      [](std::vector<std::vector<std::int64_t>> const& bytes, std::vector<std::vector<double>> const& losses,
         std::int64_t budget) {
        if (bytes.size() != losses.size()) {
          throw shape_error("bytes has " + std::to_string(bytes.size()) + " items, losses has " +
                            std::to_string(losses.size()));
        }
        std::vector<allocation_item> items(bytes.size());
        for (std::size_t i = 0; i < items.size(); ++i) {
          if (bytes[i].size() != losses[i].size()) {
            throw shape_error("item " + std::to_string(i) + ": bytes and losses differ in length");
          }
          for (std::size_t j = 0; j < bytes[i].size(); ++j) items[i].candidates.push_back({bytes[i][j], losses[i][j]});
        }
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
        return result;
      },
      py::arg("bytes"), py::arg("losses"), py::arg("budget"),
      "Exact multiple-choice knapsack: one candidate per item, least total loss within the byte budget.");
}

}  // namespace prismaquant::bindings
