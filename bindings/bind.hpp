// One function per topic; each adds its part to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace prismaquant::bindings {

void bind_formats(pybind11::module_& m);
void bind_codec(pybind11::module_& m);
void bind_solver(pybind11::module_& m);
void bind_allocator(pybind11::module_& m);

}  // namespace prismaquant::bindings
