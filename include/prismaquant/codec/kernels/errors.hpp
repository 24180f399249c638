/// @file
/// How far decoded values are from weights, added up in float64 on 16 lanes.
#pragma once

#include "prismaquant/codec/kernels/rows.hpp"
#include "prismaquant/simd/arithmetic.hpp"

#if defined(PRISMAQUANT_HAS_VECTORS)

namespace prismaquant::PRISMAQUANT_TARGET {

template <input In>
void add_errors(void const* weights, float const* decoded, std::size_t count, double* squared_error,
                double* squared_weight, double* max_error) noexcept {
  f64 error = load<f64>(squared_error), weight = load<f64>(squared_weight), largest = load<f64>(max_error);
  auto const add = [&](void const* from, float const* values, std::size_t i) PRISMAQUANT_INLINE_LAMBDA {
    f64 const w = widen(load_weights<In>(from, i));
    f64 const difference = widen(load<f32>(values)) - w;
    error = error + difference * difference;
    weight = weight + w * w;
    largest = larger(largest, larger(difference, splat(0.0) - difference));
  };
  for_each_chunk<16, In>(
      weights, count, [&](void const* from, std::size_t i) PRISMAQUANT_INLINE_LAMBDA { add(from, decoded + i, i); },
      [&](void const* from, std::size_t i, std::size_t n) PRISMAQUANT_INLINE_LAMBDA {
        float rest[16] = {};
        __builtin_memcpy(rest, decoded + i, n * sizeof(float));
        add(from, rest, 0);  // zeros add nothing
      });
  store(squared_error, error);
  store(squared_weight, weight);
  store(max_error, largest);
}

}  // namespace prismaquant::PRISMAQUANT_TARGET

#endif
