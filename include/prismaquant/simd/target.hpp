/// @file
/// The instruction set that this translation unit is compiled for, as a namespace.
///
/// One program may hold the same kernel several times, once per translation unit and instruction set. What makes that
/// legal is that every name of a kernel lives in a namespace that names the instruction set, and that kernels call
/// nothing outside it: an inline function compiled under -mavx512f must never be the one that the linker keeps for
/// everybody. `kernels_symbols` (a test) holds the object files to it.
#pragma once

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && \
    defined(__AVX512CD__)
#define PRISMAQUANT_AVX512 1
#if defined(__AVX512VBMI__)
#define PRISMAQUANT_VBMI 1
#define PRISMAQUANT_TARGET isa_avx512_vbmi
#define PRISMAQUANT_TARGET_NAME "avx512_vbmi"
#else
#define PRISMAQUANT_TARGET isa_avx512
#define PRISMAQUANT_TARGET_NAME "avx512"
#endif
#elif defined(__AVX2__) && defined(__FMA__)
#define PRISMAQUANT_AVX2 1
#define PRISMAQUANT_TARGET isa_avx2
#define PRISMAQUANT_TARGET_NAME "avx2"
#elif defined(__aarch64__) && defined(__ARM_NEON)
#define PRISMAQUANT_NEON 1
#define PRISMAQUANT_TARGET isa_neon
#define PRISMAQUANT_TARGET_NAME "neon"
#elif defined(__SSE2__)
#define PRISMAQUANT_SSE2 1
#define PRISMAQUANT_TARGET isa_baseline
#define PRISMAQUANT_TARGET_NAME "baseline"
#else
#define PRISMAQUANT_TARGET isa_baseline
#define PRISMAQUANT_TARGET_NAME "baseline"
#endif

/// Vectors are written with the vector extensions of g++ (12 or newer) and clang; other compilers get the scalar codec.
#if defined(__GNUC__) && defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector) && __has_builtin(__builtin_convertvector)
#define PRISMAQUANT_HAS_VECTORS 1
#endif
#endif

#define PRISMAQUANT_INLINE [[gnu::always_inline]] inline
#define PRISMAQUANT_INLINE_LAMBDA __attribute__((always_inline))  // between the parameters and the body

#if defined(__clang__)
#define PRISMAQUANT_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PRISMAQUANT_UNROLL _Pragma("GCC unroll 16")
#endif
