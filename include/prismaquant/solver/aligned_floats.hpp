/// @file
/// Memory that vector registers read and write whole.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace prismaquant::detail {

/// Allocates on cache lines: a register that crosses two costs twice.
template <class T>
struct cache_line_allocator {
  using value_type = T;
  static constexpr std::align_val_t line{64};

  cache_line_allocator() = default;
  template <class U>
  cache_line_allocator(cache_line_allocator<U> const&) noexcept {}

  T* allocate(std::size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), line)); }
  void deallocate(T* p, std::size_t) noexcept { ::operator delete(p, line); }
  bool operator==(cache_line_allocator const&) const = default;
};

using aligned_floats = std::vector<float, cache_line_allocator<float>>;

}  // namespace prismaquant::detail
