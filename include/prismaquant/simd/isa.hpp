/// @file
/// Instruction sets: which one this translation unit was compiled for, and which the processor has.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace prismaquant {

/// The widest instruction set that the compiler was allowed to use here.
constexpr std::string_view compiled_isa() noexcept {
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
  return "avx512";
#elif defined(__AVX2__) && defined(__FMA__)
  return "avx2";
#elif defined(__aarch64__)
  return "neon";
#else
  return "baseline";
#endif
}

/// Instruction sets of this processor that quantization kernels can profit from, narrowest first.
inline std::vector<std::string> processor_isas() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  __builtin_cpu_init();
  std::vector<std::string> found{"baseline"};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.emplace_back("avx2");
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) found.emplace_back("avx512");
  if (__builtin_cpu_supports("avx512vbmi")) found.emplace_back("avx512_vbmi");
  return found;
#else
  return {std::string(compiled_isa())};
#endif
}

}  // namespace prismaquant
