// Stages of a chain between Python and C++: a name, and a dict of the options of the struct of that name.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <utility>
#include <vector>

#include "bind.hpp"
#include "prismaquant/solver/solver_list.hpp"

namespace prismaquant::bindings {

using stage_object = std::pair<std::string, record>;

// The stage called `name` with `options`, others as by default; throws format_error.
stage stage_arg(stage_object const& given);

// The inverse.
stage_object to_object(stage const& s);

}  // namespace prismaquant::bindings
