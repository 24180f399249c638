// Tensor arguments: borrowed from numpy, ml_dtypes or any CPU object with __dlpack__ (torch, JAX), never copied.
//
// accepted: numpy.ndarray of float32, float16 or ml_dtypes.bfloat16, any strides; objects with __dlpack__ on the CPU of
//           the same three types, unversioned or of DLPack 1
// rejected: other dtypes (no silent conversion), other devices, byte-swapped arrays
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "prismaquant/codec/codec.hpp"

namespace prismaquant::bindings {

namespace py = pybind11;

enum class element_type { float32, float16, bfloat16 };

// A tensor of any number of axes. In Python: _core.TensorView, which every function takes in place of the tensor.
struct tensor_view {
  std::string name;  // of the argument; starts every message
  std::byte* data = nullptr;
  element_type type{};
  std::vector<std::int64_t> shape, strides;  // strides in elements
  bool writable = false;
  std::shared_ptr<void> owner;  // keeps the memory alive; its deleter takes the GIL

  // Borrows `object`; a view that was borrowed before is taken as it is.
  static tensor_view borrow(py::handle object, std::string const& name);

  // The same tensor with `axis` as the last one; the others keep their order.
  tensor_view with_last(std::size_t axis) const;

  // The part at `index`, one number per leading axis.
  tensor_view at(std::vector<std::int64_t> const& index) const;
};

// A tensor of two axes, as the library sees it.
struct tensor_arg {
  void* data = nullptr;
  element_type type{};
  std::size_t rows = 0, columns = 0;
  std::ptrdiff_t row_stride = 0, column_stride = 0;
  std::shared_ptr<void> owner;

  // Borrows `object`; every error names the argument `name`.
  static tensor_arg borrow(py::handle object, std::string const& name);

  // The same for a tensor that is written to.
  static tensor_arg borrow_writable(py::handle object, std::string const& name);

  // Calls visitor(matrix_view<T const>) with the element type of the tensor.
  template <class Visitor>
  void visit(Visitor&& visitor) const {
    switch (type) {
      case element_type::float32:
        return visitor(as<float const>());
      case element_type::float16:
        return visitor(as<float16 const>());
      case element_type::bfloat16:
        return visitor(as<bfloat16 const>());
    }
  }

  // Calls visitor(matrix_view<T>).
  template <class Visitor>
  void visit_writable(Visitor&& visitor) const {
    visit([&]<class T>(matrix_view<T const>) { visitor(as<T>()); });
  }

  template <class T>
  matrix_view<T> as() const {
    return {static_cast<T*>(data), rows, columns, row_stride, column_stride};
  }
};

// Checks that elements of `size` bytes can be read in place.
inline void require_aligned(std::string const& name, void const* data, std::size_t size) {
  if (reinterpret_cast<std::uintptr_t>(data) % size == 0) return;
  throw py::value_error(name + ": the data is not aligned to its item size (" + std::to_string(size) +
                        " bytes); pass a copy");
}

// The stride of one axis in elements.
inline py::ssize_t element_stride(std::string const& name, py::array const& array, py::ssize_t axis) {
  py::ssize_t const bytes = array.strides(axis);
  if (bytes % array.itemsize() == 0) return bytes / array.itemsize();
  throw shape_error(name + ": the stride of axis " + std::to_string(axis) + " (" + std::to_string(bytes) +
                    " bytes) is not a multiple of the item size " + std::to_string(array.itemsize()));
}

// A two-dimensional numpy array of exactly the element type T, borrowed; errors name the argument. Not const T: to be
// written.
template <class T>
matrix_view<T> array_view(py::array const& array, char const* name) {
  using element = std::remove_const_t<T>;
  if (!py::isinstance<py::array_t<element>>(array) || array.ndim() != 2) {
    throw shape_error(std::string(name) + ": expected a two-dimensional array of " +
                      std::string(py::str(py::dtype::of<element>())) + ", got " + std::string(py::str(array.dtype())) +
                      " with " + std::to_string(array.ndim()) + " axes");
  }
  if (!std::is_const_v<T> && !array.writeable()) throw py::value_error(std::string(name) + ": the array is read-only");
  require_aligned(name, array.data(), sizeof(T));
  return {const_cast<T*>(static_cast<element const*>(array.data())), static_cast<std::size_t>(array.shape(0)),
          static_cast<std::size_t>(array.shape(1)), element_stride(name, array, 0), element_stride(name, array, 1)};
}

}  // namespace prismaquant::bindings

// In signatures (and so in the generated stub) a tensor argument is prismaquant.types.Tensor.
namespace prismaquant::bindings {
struct tensor_object : py::object {
  PYBIND11_OBJECT_DEFAULT(tensor_object, py::object, PyObject_Type_is_any)
  static bool PyObject_Type_is_any(PyObject*) { return true; }
};
}  // namespace prismaquant::bindings

namespace pybind11::detail {
template <>
struct handle_type_name<prismaquant::bindings::tensor_object> {
  static constexpr auto name = const_name("prismaquant.types.Tensor");
};
}  // namespace pybind11::detail
