// The compiled module prismaquant._core: converts arguments, releases the GIL, calls the headers, returns plain data.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind.hpp"
#include "prismaquant/simd/isa.hpp"
#include "prismaquant/version.hpp"
#include "translate.hpp"

PYBIND11_MODULE(_core, m) {
  namespace b = prismaquant::bindings;
  m.doc() = "Compiled core of prismaquant. Not a public interface: use the functions of the package.";
  b::register_translator();
  m.def(
      "version", [] { return PRISMAQUANT_VERSION; }, "Version of the C++ headers.");
  m.def(
      "compiled_isa", [] { return std::string(prismaquant::compiled_isa()); }, "Instruction set of this build.");
  m.def("processor_isas", &prismaquant::processor_isas, "Instruction sets of this processor.");
  b::bind_formats(m);
  b::bind_codec(m);
  b::bind_error(m);
  b::bind_solver(m);
  b::bind_allocator(m);
}
