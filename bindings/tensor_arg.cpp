#include "tensor_arg.hpp"

#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "dlpack_abi.hpp"

namespace prismaquant::bindings {
namespace {

std::string type_name(py::handle object) { return py::str(py::type::of(object).attr("__name__")); }

// Shape and strides (in elements) that every source of tensors is brought to.
void set_shape(tensor_arg& arg, std::vector<std::int64_t> const& shape, std::vector<std::int64_t> const& strides,
               std::string const& name) {
  if (shape.size() != 2) {
    std::string const text = py::str(py::tuple(py::cast(shape)));
    throw shape_error(name + ": expected 2 axes (rows, columns), got shape " + text);
  }
  arg.rows = static_cast<std::size_t>(shape[0]);
  arg.columns = static_cast<std::size_t>(shape[1]);
  arg.row_stride = strides[0];
  arg.column_stride = strides[1];
}

[[noreturn]] void reject_dtype(std::string const& name, std::string const& dtype) {
  throw py::type_error(name + ": dtype " + dtype + " is not supported; accepted are float32, float16 and bfloat16");
}

tensor_arg from_numpy(py::array const& array, std::string const& name) {
  tensor_arg arg;
  std::string const dtype = py::str(array.dtype().attr("name"));
  if (!array.dtype().attr("isnative").cast<bool>()) reject_dtype(name, dtype + " with swapped bytes");
  if (dtype == "float32") {
    arg.type = element_type::float32;
  } else if (dtype == "float16") {
    arg.type = element_type::float16;
  } else if (dtype == "bfloat16") {
    arg.type = element_type::bfloat16;
  } else {
    reject_dtype(name, dtype);
  }
  std::vector<std::int64_t> shape, strides;
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
    shape.push_back(array.shape(axis));
    strides.push_back(element_stride(name, array, axis));
  }
  set_shape(arg, shape, strides, name);
  arg.data = const_cast<void*>(array.data());
  require_aligned(name, arg.data, static_cast<std::size_t>(array.itemsize()));
  arg.writable = array.writeable();
  arg.owner = std::shared_ptr<void>(new py::array(array), [](void* held) {
    py::gil_scoped_acquire const gil;
    delete static_cast<py::array*>(held);
  });
  return arg;
}

element_type dlpack_type(dlpack::data_type dtype, std::string const& name) {
  if (dtype.lanes == 1 && dtype.code == dlpack::floating && dtype.bits == 32) return element_type::float32;
  if (dtype.lanes == 1 && dtype.code == dlpack::floating && dtype.bits == 16) return element_type::float16;
  if (dtype.lanes == 1 && dtype.code == dlpack::brain_floating && dtype.bits == 16) return element_type::bfloat16;
  reject_dtype(name, "with DLPack code " + std::to_string(dtype.code) + " of " + std::to_string(dtype.bits) + " bits");
}

tensor_arg from_dlpack(py::handle object, std::string const& name) {
  py::object capsule;
  try {
    auto const device = object.attr("__dlpack_device__")().cast<std::pair<int, int>>();
    if (device.first != dlpack::cpu && device.first != dlpack::cuda_host) {
      throw py::type_error(name + ": the tensor is not in CPU memory (DLPack device type " +
                           std::to_string(device.first) + "); call .cpu() first");
    }
    capsule = object.attr("__dlpack__")();
  } catch (py::error_already_set& cause) {  // torch refuses tensors that require a gradient, and says so
    throw py::type_error(name + ": the tensor cannot be borrowed (" + std::string(py::str(cause.value())) + ")");
  }
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor") == 0) {
    throw py::type_error(name + ": __dlpack__() returned " + type_name(capsule) + ", expected a capsule \"dltensor\"");
  }
  auto* managed = static_cast<dlpack::managed_tensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  PyCapsule_SetName(capsule.ptr(), "used_dltensor");  // from here on the tensor is ours to release

  tensor_arg arg;
  arg.owner = std::shared_ptr<void>(managed, [](void* held) {
    py::gil_scoped_acquire const gil;
    auto* const tensor = static_cast<dlpack::managed_tensor*>(held);
    if (tensor->deleter != nullptr) tensor->deleter(tensor);
  });
  dlpack::tensor const& t = managed->tensor;
  arg.type = dlpack_type(t.dtype, name);
  std::vector<std::int64_t> const shape(t.shape, t.shape + t.ndim);
  std::vector<std::int64_t> strides(shape.size(), 1);
  if (t.strides != nullptr) {
    strides.assign(t.strides, t.strides + t.ndim);
  } else {
    for (std::size_t axis = shape.size(); axis-- > 1;) strides[axis - 1] = strides[axis] * shape[axis];
  }
  set_shape(arg, shape, strides, name);
  arg.data = static_cast<std::byte*>(t.data) + t.byte_offset;
  require_aligned(name, arg.data, t.dtype.bits / 8u);
  arg.writable = true;
  return arg;
}

}  // namespace

tensor_arg tensor_arg::borrow(py::handle object, std::string const& name) {
  if (py::isinstance<py::array>(object)) return from_numpy(py::reinterpret_borrow<py::array>(object), name);
  if (py::hasattr(object, "__dlpack__")) return from_dlpack(object, name);
  throw py::type_error(name + ": expected a numpy array or an object with __dlpack__ (a torch tensor), got " +
                       type_name(object));
}

tensor_arg tensor_arg::borrow_writable(py::handle object, std::string const& name) {
  auto arg = borrow(object, name);
  if (!arg.writable) throw py::value_error(name + ": the array is read-only");
  return arg;
}

}  // namespace prismaquant::bindings
