#include "tensor_arg.hpp"

#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "bind.hpp"
#include "dlpack_abi.hpp"

namespace prismaquant::bindings {
namespace {

std::string type_name(py::handle object) { return py::str(py::type::of(object).attr("__name__")); }

[[noreturn]] void reject_dtype(std::string const& name, std::string const& dtype) {
  throw py::type_error(name + ": dtype " + dtype + " is not supported; accepted are float32, float16 and bfloat16");
}

tensor_view from_numpy(py::array const& array, std::string const& name) {
  tensor_view view;
  view.name = name;
  std::string const dtype = py::str(array.dtype().attr("name"));
  if (!array.dtype().attr("isnative").cast<bool>()) reject_dtype(name, dtype + " with swapped bytes");
  if (dtype == "float32") {
    view.type = element_type::float32;
  } else if (dtype == "float16") {
    view.type = element_type::float16;
  } else if (dtype == "bfloat16") {
    view.type = element_type::bfloat16;
  } else {
    reject_dtype(name, dtype);
  }
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
    view.shape.push_back(array.shape(axis));
    view.strides.push_back(element_stride(name, array, axis));
  }
  view.data = static_cast<std::byte*>(const_cast<void*>(array.data()));
  require_aligned(name, view.data, static_cast<std::size_t>(array.itemsize()));
  view.writable = array.writeable();
  view.owner = std::shared_ptr<void>(new py::array(array), [](void* held) {
    py::gil_scoped_acquire const gil;
    delete static_cast<py::array*>(held);
  });
  return view;
}

element_type dlpack_type(dlpack::data_type dtype, std::string const& name) {
  if (dtype.lanes == 1 && dtype.code == dlpack::floating && dtype.bits == 32) return element_type::float32;
  if (dtype.lanes == 1 && dtype.code == dlpack::floating && dtype.bits == 16) return element_type::float16;
  if (dtype.lanes == 1 && dtype.code == dlpack::brain_floating && dtype.bits == 16) return element_type::bfloat16;
  reject_dtype(name, "with DLPack code " + std::to_string(dtype.code) + " of " + std::to_string(dtype.bits) + " bits");
}

// Asks for a capsule: of version 1 from producers that know it, else of the older kind.
py::object capsule_of(py::handle object, std::string const& name) {
  try {
    auto const device = object.attr("__dlpack_device__")().cast<std::pair<int, int>>();
    if (device.first != dlpack::cpu && device.first != dlpack::cuda_host) {
      throw py::type_error(name + ": the tensor is not in CPU memory (DLPack device type " +
                           std::to_string(device.first) + "); call .cpu() first");
    }
    py::object const lend = object.attr("__dlpack__");
    try {
      return lend(py::arg("max_version") = py::make_tuple(dlpack::major_version, 0));
    } catch (py::error_already_set& cause) {
      if (!cause.matches(PyExc_TypeError)) throw;  // a producer from before version 1 does not know the keyword
      return lend();
    }
  } catch (py::error_already_set& cause) {  // torch refuses tensors that require a gradient, and says so
    throw py::type_error(name + ": the tensor cannot be borrowed (" + std::string(py::str(cause.value())) + ")");
  }
}

// Takes a capsule over: from here on its tensor is ours to give back.
template <class Managed>
Managed* take(py::object const& capsule, char const* kind, char const* used, std::shared_ptr<void>& owner) {
  auto* const managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), kind));
  PyCapsule_SetName(capsule.ptr(), used);
  owner = std::shared_ptr<void>(managed, [](void* held) {
    py::gil_scoped_acquire const gil;
    auto* const tensor = static_cast<Managed*>(held);
    if (tensor->deleter != nullptr) tensor->deleter(tensor);
  });
  return managed;
}

tensor_view from_dlpack(py::handle object, std::string const& name) {
  py::object const capsule = capsule_of(object, name);
  tensor_view view;
  view.name = name;
  view.writable = true;
  dlpack::tensor lent;
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned") != 0) {
    using managed = dlpack::versioned_tensor;
    auto* const tensor = take<managed>(capsule, "dltensor_versioned", "used_dltensor_versioned", view.owner);
    if (tensor->version.major != dlpack::major_version) {
      throw py::type_error(name + ": __dlpack__() gave version " + std::to_string(tensor->version.major) +
                           " of DLPack, accepted are 1 and the unversioned form");
    }
    lent = tensor->tensor;
    view.writable = (tensor->flags & (dlpack::read_only | dlpack::is_copied)) == 0;
  } else if (PyCapsule_IsValid(capsule.ptr(), "dltensor") != 0) {
    lent = take<dlpack::managed_tensor>(capsule, "dltensor", "used_dltensor", view.owner)->tensor;
  } else {
    throw py::type_error(name + ": __dlpack__() returned " + type_name(capsule) +
                         ", expected a capsule \"dltensor\" or \"dltensor_versioned\"");
  }
  view.type = dlpack_type(lent.dtype, name);
  view.shape.assign(lent.shape, lent.shape + lent.ndim);
  if (lent.strides != nullptr) {
    view.strides.assign(lent.strides, lent.strides + lent.ndim);
  } else {
    view.strides.assign(view.shape.size(), 1);
    for (std::size_t axis = view.shape.size(); axis-- > 1;) {
      view.strides[axis - 1] = view.strides[axis] * view.shape[axis];
    }
  }
  view.data = static_cast<std::byte*>(lent.data) + lent.byte_offset;
  require_aligned(name, view.data, lent.dtype.bits / 8u);
  return view;
}

py::tuple as_tuple(std::vector<std::int64_t> const& numbers) { return py::tuple(py::cast(numbers)); }

tensor_arg as_matrix(tensor_view const& view) {
  if (view.shape.size() != 2) {
    std::string const text = py::str(as_tuple(view.shape));
    throw shape_error(view.name + ": expected 2 axes (rows, columns), got shape " + text);
  }
  return {view.data,
          view.type,
          static_cast<std::size_t>(view.shape[0]),
          static_cast<std::size_t>(view.shape[1]),
          view.strides[0],
          view.strides[1],
          view.owner};
}

}  // namespace

tensor_view tensor_view::borrow(py::handle object, std::string const& name) {
  if (py::isinstance<tensor_view>(object)) return object.cast<tensor_view>();
  if (py::isinstance<py::array>(object)) return from_numpy(py::reinterpret_borrow<py::array>(object), name);
  if (py::hasattr(object, "__dlpack__")) return from_dlpack(object, name);
  throw py::type_error(name + ": expected a numpy array or an object with __dlpack__ (a torch tensor), got " +
                       type_name(object));
}

tensor_view tensor_view::with_last(std::size_t axis) const {
  if (axis >= shape.size()) throw shape_error(name + ": there is no axis " + std::to_string(axis));
  tensor_view moved = *this;
  for (auto* const numbers : {&moved.shape, &moved.strides}) {
    std::rotate(numbers->begin() + static_cast<std::ptrdiff_t>(axis),
                numbers->begin() + static_cast<std::ptrdiff_t>(axis) + 1, numbers->end());
  }
  return moved;
}

tensor_view tensor_view::at(std::vector<std::int64_t> const& index) const {
  if (index.size() > shape.size()) throw shape_error(name + ": the index has more numbers than the tensor axes");
  tensor_view part = *this;
  std::int64_t offset = 0;
  for (std::size_t axis = 0; axis < index.size(); ++axis) {
    if (index[axis] < 0 || index[axis] >= shape[axis]) {
      throw shape_error(name + ": index " + std::to_string(index[axis]) + " is outside axis " + std::to_string(axis));
    }
    offset += index[axis] * strides[axis];
  }
  part.data += offset * (type == element_type::float32 ? 4 : 2);
  auto const taken = static_cast<std::ptrdiff_t>(index.size());
  part.shape.erase(part.shape.begin(), part.shape.begin() + taken);
  part.strides.erase(part.strides.begin(), part.strides.begin() + taken);
  return part;
}

tensor_arg tensor_arg::borrow(py::handle object, std::string const& name) {
  return as_matrix(tensor_view::borrow(object, name));
}

tensor_arg tensor_arg::borrow_writable(py::handle object, std::string const& name) {
  auto const view = tensor_view::borrow(object, name);
  auto const arg = as_matrix(view);
  if (!view.writable) throw py::value_error(name + ": the array is read-only");
  return arg;
}

void bind_tensor(py::module_& m) {
  py::class_<tensor_view>(m, "TensorView", "A borrowed tensor; functions take it in place of the tensor itself.")
      .def(py::init(
               [](tensor_object const& tensor, std::string const& name) { return tensor_view::borrow(tensor, name); }),
           py::arg("tensor"), py::arg("name"), "Borrows a tensor; `name` starts the messages about it.")
      .def_property_readonly(
          "shape", [](tensor_view const& view) -> py::typing::Tuple<int, py::ellipsis> { return as_tuple(view.shape); })
      .def_property_readonly("dtype",
                             [](tensor_view const& view) {
                               switch (view.type) {
                                 case element_type::float32:
                                   return "float32";
                                 case element_type::float16:
                                   return "float16";
                                 case element_type::bfloat16:
                                   break;
                               }
                               return "bfloat16";
                             })
      .def("with_last", &tensor_view::with_last, py::arg("axis"),
           "The same tensor with one axis (not negative) as the last one; the others keep their order.")
      .def("at", &tensor_view::at, py::arg("index"), "The part at `index`, one number per leading axis.");
}

}  // namespace prismaquant::bindings
