// BLAS and LAPACK by the capsules in which SciPy publishes its own, so that no second library is linked.
#pragma once

#include <pybind11/pybind11.h>

#include <map>
#include <string>

#include "prismaquant/linalg/lapack_backend.hpp"

namespace prismaquant::bindings {

// `functions`: sgemm, ssyrk, spotrf and strtri, capsules of Cython whose names are the signatures in C, which are
// checked. Empty: a backend that is not to be called. Throws TypeError.
lapack_backend linalg_arg(std::map<std::string, pybind11::capsule> const& functions);

}  // namespace prismaquant::bindings
