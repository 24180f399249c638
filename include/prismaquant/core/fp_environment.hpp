/// @file
/// A guard for the floating-point environment that the bit-exact contracts rest on.
#pragma once

#include <cfenv>
#include <cstdint>

#if defined(__SSE__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

namespace prismaquant {

/// For its lifetime: rounding to nearest, ties to even, and subnormals neither flushed nor treated as zero, in this
/// thread. A neighbour library built with -ffast-math, or torch.set_flush_denormal(True), may have changed both; E8M0
/// code 0 and small NVFP4 scales are float32 subnormals.
class fp_environment_guard {
 public:
#if defined(__SSE__) || defined(_M_X64)
  fp_environment_guard() noexcept : saved_(_mm_getcsr()) { _mm_setcsr(saved_ & ~0xe040u); }  // RC = 00, FTZ = DAZ = 0
  ~fp_environment_guard() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
  fp_environment_guard() noexcept {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ & ~std::uint64_t{0x1c00000}));  // RMode = 00, FZ = 0
  }
  ~fp_environment_guard() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }
#else
  fp_environment_guard() noexcept : saved_(std::fegetround()) { std::fesetround(FE_TONEAREST); }
  ~fp_environment_guard() { std::fesetround(saved_); }
#endif
  fp_environment_guard(fp_environment_guard const&) = delete;
  fp_environment_guard& operator=(fp_environment_guard const&) = delete;

 private:
#if defined(__SSE__) || defined(_M_X64)
  unsigned saved_;
#elif defined(__aarch64__)
  std::uint64_t saved_ = 0;
#else
  int saved_;
#endif
};

}  // namespace prismaquant
