// Memory between pages that cannot be accessed: a touch outside of it ends the test.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>

namespace prismaquant::test {

// `size` bytes with an inaccessible page right behind them (or, at_start, right before).
class guarded {
 public:
  guarded(std::size_t size, bool at_start) {
    auto const page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    std::size_t const inner = (size + page - 1) / page * page;
    length_ = inner + 2 * page;
    base_ = static_cast<char*>(mmap(nullptr, length_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base_, page, PROT_NONE);
    mprotect(base_ + page + inner, page, PROT_NONE);
    data_ = at_start ? base_ + page : base_ + page + inner - size;
  }
  ~guarded() { munmap(base_, length_); }
  guarded(guarded const&) = delete;
  guarded& operator=(guarded const&) = delete;

  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  char* base_;
  std::size_t length_;
  char* data_;
};

}  // namespace prismaquant::test
