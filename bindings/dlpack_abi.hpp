// The part of the DLPack C ABI (version 0, the unversioned capsule) that is needed to borrow a CPU tensor.
// Source: dlpack.h of the DLPack project; declared here so that no header has to be installed.
#pragma once

#include <cstdint>

namespace prismaquant::bindings::dlpack {

enum device_type : std::int32_t { cpu = 1, cuda_host = 3 };
enum type_code : std::uint8_t { floating = 2, brain_floating = 4 };

struct device {
  std::int32_t type;
  std::int32_t id;
};
struct data_type {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};
struct tensor {
  void* data;
  dlpack::device device;
  std::int32_t ndim;
  data_type dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null for a dense row-major tensor
  std::uint64_t byte_offset;
};
struct managed_tensor {
  dlpack::tensor tensor;
  void* context;
  void (*deleter)(managed_tensor*);
};

}  // namespace prismaquant::bindings::dlpack
