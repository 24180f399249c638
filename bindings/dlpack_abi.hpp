// The part of the DLPack C ABI that is needed to borrow a CPU tensor: the unversioned capsule ("dltensor") and that of
// version 1 ("dltensor_versioned"). Source: dlpack.h of the DLPack project; declared here so that no header has to be
// installed.
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

// What a producer of version 1 gives. The layout of what follows `version` may differ under another major number.
struct versioned_tensor {
  struct {
    std::uint32_t major;
    std::uint32_t minor;
  } version;
  void* context;
  void (*deleter)(versioned_tensor*);
  std::uint64_t flags;
  dlpack::tensor tensor;
};
constexpr std::uint32_t major_version = 1;
constexpr std::uint64_t read_only = 1;
constexpr std::uint64_t is_copied = 2;

}  // namespace prismaquant::bindings::dlpack
