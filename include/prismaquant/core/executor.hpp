/// @file
/// Executors: who runs the rows. The library owns no threads; the caller passes an executor to every function that can
/// use more than one. Results never depend on which executor runs them.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <exception>
#include <thread>
#include <vector>

namespace prismaquant {

/// Runs `body(begin, end)` over disjoint ranges that cover [0, count), and returns when all are done.
template <class E>
concept executor = requires(E& e, std::size_t count, void (*body)(std::size_t, std::size_t)) {
  e.for_ranges(count, body);
};

/// Everything in the calling thread.
struct serial_executor {
  template <std::invocable<std::size_t, std::size_t> Body>
  void for_ranges(std::size_t count, Body&& body) const {
    if (count != 0) body(std::size_t{0}, count);
  }
};

/// `threads` contiguous ranges, the first in the calling thread, each other in a thread that lives for the call.
/// An exception in a range is rethrown in the calling thread after all ranges ended (the one of the lowest range).
class thread_executor {
 public:
  /// `threads` == 0 stands for the number of hardware threads.
  explicit thread_executor(std::size_t threads = 0)
      : threads_(threads != 0 ? threads : std::max<std::size_t>(1, std::thread::hardware_concurrency())) {}

  std::size_t threads() const noexcept { return threads_; }

  template <std::invocable<std::size_t, std::size_t> Body>
  void for_ranges(std::size_t count, Body&& body) const {
    std::size_t const parts = std::min(threads_, count);
    if (parts == 0) return;
    std::vector<std::exception_ptr> failures(parts);
    auto const run = [&](std::size_t part) noexcept {
      try {
        body(count * part / parts, count * (part + 1) / parts);
      } catch (...) {
        failures[part] = std::current_exception();
      }
    };
    {
      std::vector<std::jthread> workers;
      workers.reserve(parts - 1);
      for (std::size_t part = 1; part < parts; ++part) workers.emplace_back(run, part);
      run(0);
    }
    for (auto const& failure : failures) {
      if (failure) std::rethrow_exception(failure);
    }
  }

 private:
  std::size_t threads_;
};

}  // namespace prismaquant
