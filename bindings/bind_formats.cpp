#include <pybind11/numpy.h>
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

namespace {

template <class Word>
py::tuple part(std::size_t rows, std::size_t columns) {
  return py::make_tuple(py::dtype::of<Word>(), py::make_tuple(rows, columns));
}

}  // namespace

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
      "storage",
      [](std::string const& name, std::size_t rows, std::size_t columns) {
        record parts;
        visit_format(name, [&]<format F>(F) {
          storage_shape const s = stored<F>(rows, columns);
          parts["codes"] = part<typename F::layout::word>(s.code_rows, s.code_columns);
          if (has_scales<F>) parts["scales"] = part<typename F::scale::code_type>(s.scale_rows, s.scale_columns);
          if (!F::extra::name.empty()) parts["extra"] = part<typename F::extra::word>(s.extra_rows, s.extra_columns);
        });
        return parts;
      },
      py::arg("format"), py::arg("rows"), py::arg("columns"),
      "Dtype and shape of codes, scales and extra words of a matrix; those that the format has.");

  m.def(
      "element_values",
      [](std::string const& name) {
        py::array_t<float> values;
        visit_format(name, [&]<format F>(F) {
          using element = typename F::element;
          values.resize({std::size_t{1} << element::bits});
          for (py::ssize_t code = 0; code < values.size(); ++code) {
            values.mutable_at(code) = element::decode(static_cast<typename element::code_type>(code));
          }
        });
        return values;
      },
      py::arg("format"), "What each element code stands for under scale 1, in the order of the codes.");

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
