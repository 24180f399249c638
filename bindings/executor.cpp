#include "executor.hpp"

#include "prismaquant/core/executor.hpp"

namespace prismaquant::bindings {

void module_executor::run(std::size_t count, call body, void const* context) const {
  thread_executor(threads_).for_ranges(count, [&](std::size_t begin, std::size_t end) { body(context, begin, end); });
}

}  // namespace prismaquant::bindings
