/// @file
/// The exceptions of the library. Kernels never throw; entry points throw one of these before they touch any output.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace prismaquant {

/// Base of every exception thrown by the library.
struct error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A matrix has a shape that the operation cannot take (the message names the matrix and the axis).
struct shape_error : error {
  using error::error;
};

/// An unknown name (format, solver, scale rule), or a combination that does not exist.
struct format_error : error {
  using error::error;
};

/// A value that no format can represent (NaN, infinity) or that is outside its documented range.
struct numeric_error : error {
  using error::error;
};

/// A file or document that breaks its schema; the message starts with the place inside the document.
struct parse_error : error {
  using error::error;
};

/// No choice fits the budget. `minimum` is the smallest number of bytes that any choice needs.
struct budget_error : error {
  budget_error(std::string const& message, std::int64_t minimum_bytes) : error(message), minimum(minimum_bytes) {}
  std::int64_t minimum;
};

}  // namespace prismaquant
