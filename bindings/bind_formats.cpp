#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <vector>

#include "bind.hpp"
#include "prismaquant/codec/codec.hpp"
#include "prismaquant/formats/format_list.hpp"

namespace prismaquant::bindings {
namespace py = pybind11;

void bind_formats(py::module_& m) {
  m.def(
      "list_formats",
      [] {
        std::vector<std::string> names;
        for_each_format([&]<format F>(F) { names.emplace_back(F::name); });
        return names;
      },
      "Names of all formats, in the order of the format list.");

  m.def(
      "format_info",
      [](std::string const& name) {
        record info;
        visit_format(name, [&]<format F>(F) {
          info["name"] = std::string(F::name);
          info["element_bits"] = F::element::bits;
          info["scale_bits"] = F::scale::bits;
          info["block_rows"] = F::block_shape::rows;
          info["block_columns"] = F::block_shape::columns;
          info["has_global_scale"] = F::has_global_scale;
          info["extra"] = std::string(F::extra::name);
        });
        return info;
      },
      py::arg("name"), "Facts of one format.");

  m.def(
      "stored_bytes",
      [](std::string const& name, std::size_t rows, std::size_t columns) {
        std::size_t bytes = 0;
        visit_format(name, [&]<format F>(F) { bytes = stored_bytes<F>(rows, columns); });
        return bytes;
      },
      py::arg("format"), py::arg("rows"), py::arg("columns"),
      "Bytes of codes, block scales, extra words and global scale of a matrix.");

  m.def(
      "why_not",
      [](std::string const& name, std::size_t columns) -> std::optional<std::string> {
        std::string reason;
        visit_format(name, [&]<format F>(F) { reason = why_not<F>(columns); });
        return reason.empty() ? std::nullopt : std::optional(reason);
      },
      py::arg("format"), py::arg("columns"), "Why a format cannot store rows of that many columns; None if it can.");
}

}  // namespace prismaquant::bindings
