// The executor of the module. Bodies are called through a pointer, so that the code that starts and joins threads is
// compiled once and not for every format, rule and dtype.
#pragma once

#include <cstddef>
#include <type_traits>

namespace prismaquant::bindings {

// `threads` == 0 stands for the number of hardware threads.
class module_executor {
 public:
  explicit module_executor(std::size_t threads) : threads_(threads) {}

  template <class Body>
  void for_ranges(std::size_t count, Body&& body) const {
    using type = std::remove_reference_t<Body>;
    run(
        count, [](void const* b, std::size_t begin, std::size_t end) { (*static_cast<type const*>(b))(begin, end); },
        &body);
  }

 private:
  using call = void (*)(void const* body, std::size_t begin, std::size_t end);
  void run(std::size_t count, call body, void const* context) const;

  std::size_t threads_;
};

}  // namespace prismaquant::bindings
