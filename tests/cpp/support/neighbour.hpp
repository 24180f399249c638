// What a library built with -ffast-math leaves behind in a thread: subnormals are flushed, or rounding is not to
// nearest.
#pragma once

#include <cstdint>
#include <thread>
#include <vector>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace prismaquant::test {

enum class disturbance { flush_subnormals, round_upwards };

// The calling thread's control register, and setting it.
#if defined(__SSE__)
inline std::uint64_t fp_control() { return _mm_getcsr() & ~0x3fu; }  // without the exception flags
inline void set_fp_control(std::uint64_t value) { _mm_setcsr(static_cast<unsigned>(value)); }
inline std::uint64_t disturbed(std::uint64_t value, disturbance how) {
  return value | (how == disturbance::flush_subnormals ? 0x8040u : 0x4000u);  // FTZ and DAZ, or RC = 10
}
#define PRISMAQUANT_TEST_FP_CONTROL 1
#elif defined(__aarch64__)
inline std::uint64_t fp_control() {
  std::uint64_t value;
  asm volatile("mrs %0, fpcr" : "=r"(value));
  return value;
}
inline void set_fp_control(std::uint64_t value) { asm volatile("msr fpcr, %0" ::"r"(value)); }
inline std::uint64_t disturbed(std::uint64_t value, disturbance how) {
  return value | (how == disturbance::flush_subnormals ? 0x1000000u : 0x400000u);  // FZ, or RMode = 01
}
#define PRISMAQUANT_TEST_FP_CONTROL 1
#endif

#if defined(PRISMAQUANT_TEST_FP_CONTROL)
// Two threads of a pool that the neighbour has used before; the caller's own thread as it is.
struct disturbed_pool {
  disturbance how;

  void for_ranges(std::size_t count, auto&& body) const {
    std::vector<std::thread> workers;
    for (std::size_t part = 0; part < 2; ++part) {
      workers.emplace_back([&, part] {
        set_fp_control(disturbed(fp_control(), how));
        if (count * part / 2 != count * (part + 1) / 2) body(count * part / 2, count * (part + 1) / 2);
      });
    }
    for (auto& worker : workers) worker.join();
  }
};
#endif

}  // namespace prismaquant::test
