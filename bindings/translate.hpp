// C++ exceptions -> the classes of prismaquant.errors, in one place.
#pragma once

#include <pybind11/pybind11.h>

#include "prismaquant/core/error.hpp"

namespace prismaquant::bindings {

namespace py = pybind11;

inline void raise(char const* name, std::string const& message, py::dict const& keywords = {}) {
  py::object const type = py::module_::import("prismaquant.errors").attr(name);
  PyErr_SetObject(type.ptr(), type(message, **keywords).ptr());
}

inline void register_translator() {
  py::register_local_exception_translator([](std::exception_ptr failure) {
    try {
      if (failure) std::rethrow_exception(failure);
    } catch (shape_error const& e) {
      raise("ShapeError", e.what());
    } catch (format_error const& e) {
      raise("FormatError", e.what());
    } catch (numeric_error const& e) {
      raise("NumericError", e.what());
    } catch (budget_error const& e) {
      raise("BudgetError", e.what(), py::dict(py::arg("minimum") = e.minimum));
    } catch (error const& e) {
      raise("Error", e.what());
    }
  });
}

}  // namespace prismaquant::bindings
