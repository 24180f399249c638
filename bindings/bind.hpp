// One function per topic; each adds its part to the module.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

namespace prismaquant::bindings {

// Plain data with named fields; the Python side turns it into a dataclass.
using record = pybind11::typing::Dict<pybind11::str, pybind11::object>;

void bind_tensor(pybind11::module_& m);
void bind_formats(pybind11::module_& m);
void bind_codec(pybind11::module_& m);
void bind_error(pybind11::module_& m);
void bind_solver(pybind11::module_& m);
void bind_allocator(pybind11::module_& m);

}  // namespace prismaquant::bindings
