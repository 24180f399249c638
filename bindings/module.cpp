// The compiled module prismaquant._core: converts arguments, releases the GIL, calls the headers, returns plain data.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind.hpp"
#include "prismaquant/codec/kernels/library.hpp"
#include "prismaquant/version.hpp"
#include "translate.hpp"

PYBIND11_MODULE(_core, m) {
  namespace b = prismaquant::bindings;
  m.doc() = "Compiled core of prismaquant. Not a public interface: use the functions of the package.";
  b::register_translator();
  m.def(
      "version", [] { return PRISMAQUANT_VERSION; }, "Version of the C++ headers.");
  m.def(
      "active_isa", [] { return std::string(prismaquant::active_kernels().isa); },
      "The instruction set in use: the widest of this processor, or the one that PRISMAQUANT_ISA names.");
  m.def("available_isas", &prismaquant::available_isas, "Instruction sets that can be used here, narrowest first.");
  b::bind_tensor(m);
  b::bind_formats(m);
  b::bind_codec(m);
  b::bind_error(m);
  b::bind_solver(m);
  b::bind_allocator(m);
}
