// Random numbers by position: the same for any number of threads.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "prismaquant/core/executor.hpp"

namespace prismaquant::test {

// The i-th of a sequence of 64-bit words (splitmix64).
constexpr std::uint64_t random_bits(std::uint64_t i) noexcept {
  std::uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Uniform in [0, 1), from the upper half of a word.
constexpr float unit(std::uint64_t word) noexcept { return static_cast<float>(word >> 40) * 0x1p-24f; }

// values[i] = make(i), by two threads.
template <class T, class Make>
void fill(std::vector<T>& values, Make&& make) {
  thread_executor(2).for_ranges(values.size(), [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) values[i] = make(i);
  });
}

}  // namespace prismaquant::test
