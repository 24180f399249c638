#include "linalg_arg.hpp"

#include <string_view>

namespace prismaquant::bindings {
namespace py = pybind11;

namespace {

// The signature in a capsule's name. SciPy's own name for float, __pyx_t_5scipy_6linalg_11cython_blas_s, has the name
// of its module in it.
std::string signature_of(py::capsule const& function) {
  std::string text = function.name() == nullptr ? "" : function.name();
  constexpr std::string_view prefix = "__pyx_t_5scipy_6linalg_", suffix = "_s ";
  for (std::size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix, at)) {
    std::size_t const end = text.find(suffix, at);
    if (end == std::string::npos || text.find(' ', at) < end) break;
    text.replace(at, end + suffix.size() - 1 - at, "float");
  }
  return text;
}

template <class Function>
void take(std::map<std::string, py::capsule> const& functions, char const* name, std::string const& expected,
          Function*& pointer) {
  auto const found = functions.find(name);
  if (found == functions.end()) throw py::type_error("linalg: " + std::string(name) + " is missing");
  auto const signature = signature_of(found->second);
  if (signature != expected) {
    throw py::type_error("linalg: " + std::string(name) + " of this SciPy is '" + signature + "', expected '" +
                         expected + "'");
  }
  pointer = reinterpret_cast<Function*>(found->second.get_pointer());
}

}  // namespace

lapack_backend linalg_arg(std::map<std::string, py::capsule> const& functions) {
  lapack_backend result;
  if (functions.empty()) return result;
  take(functions, "sgemm",
       "void (char *, char *, int *, int *, int *, float *, float *, int *, float *, int *, float *, float *, int *)",
       result.sgemm);
  take(functions, "ssyrk", "void (char *, char *, int *, int *, float *, float *, int *, float *, float *, int *)",
       result.ssyrk);
  take(functions, "spotrf", "void (char *, int *, float *, int *, int *)", result.spotrf);
  take(functions, "strtri", "void (char *, char *, int *, float *, int *, int *)", result.strtri);
  return result;
}

}  // namespace prismaquant::bindings
