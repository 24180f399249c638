// Every instruction set of this machine against the scalar codec.
#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include "prismaquant/codec/codec.hpp"
#include "prismaquant/codec/kernels/library.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

namespace prismaquant::test {

// All formats have kernels.
using kernel_formats = format_list;

template <format F>
float own_global_scale(matrix_view<float const> weights) {
  return prismaquant::global_scale_for<amax_rule, F>(block_amax(weights));
}

// Rows of normal deviates whose sizes span many binades, with zeros, exact ties and row maxima among them.
inline random_matrix hostile_matrix(std::size_t rows, std::size_t columns, unsigned seed) {
  random_matrix m(rows, columns, seed);
  std::mt19937 generator(seed);
  for (std::size_t i = 0; i < m.elements.size(); ++i) {
    auto& x = m.elements[i];
    switch (generator() % 8u) {
      case 0:
        x = std::ldexp(x, static_cast<int>(generator() % 24u) - 16);
        break;
      case 1:
        x = 0.0f;
        break;
      case 2:
        x = -0.0f;
        break;
      case 3:
        x = 0.25f * static_cast<float>(static_cast<int>(generator() % 49u) - 24);
        break;
      default:
        break;
    }
  }
  return m;
}

// Calls body() under every instruction set but the scalar codec; restores what was in use.
template <class Body>
void on_every_isa(Body&& body) {
  std::string const before = active_kernels().isa;
  for (auto const& isa : available_isas()) {
    if (isa == "scalar") continue;
    use_isa(isa);
    CAPTURE(isa);
    body();
  }
  use_isa(before);
}

// body() by the scalar codec.
template <class Body>
auto on_scalar(Body&& body) {
  std::string const before = active_kernels().isa;
  use_isa("scalar");
  auto result = body();
  use_isa(before);
  return result;
}

template <format F>
bool same(quantized_matrix<F> const& a, quantized_matrix<F> const& b) {
  return a.codes() == b.codes() && a.scales() == b.scales() && a.extra() == b.extra();
}

// Encodes by the scalar codec and by every kernel; all bytes must be equal.
template <format F, scale_rule Rule, weight_type T, executor Executor = serial_executor>
void require_encode_parity(matrix_view<T const> weights, float global_scale, Executor&& executor = {}) {
  auto const expected = on_scalar([&] { return encode<F, Rule>(weights, global_scale); });
  on_every_isa([&] {
    auto const found = encode<F, Rule>(weights, global_scale, executor);
    if (same(found, expected)) return;
    for (std::size_t i = 0; i < expected.scales().size(); ++i) {
      CAPTURE(i, F::name);
      REQUIRE(static_cast<unsigned>(found.scales()[i]) == static_cast<unsigned>(expected.scales()[i]));
    }
    for (std::size_t i = 0; i < expected.codes().size(); ++i) {
      CAPTURE(i, F::name);
      REQUIRE(static_cast<unsigned>(found.codes()[i]) == static_cast<unsigned>(expected.codes()[i]));
    }
  });
}

// The same for decoding into Out; compares bits.
template <format F, class Out>
void require_decode_parity(const_quantized_view<F> quantized) {
  std::size_t const count = quantized.rows * quantized.columns;
  auto const run = [&] {
    std::vector<Out> values(count);
    decode<F>(quantized, view(std::span<Out>(values), quantized.rows, quantized.columns));
    return values;
  };
  auto const expected = on_scalar(run);
  on_every_isa([&] {
    auto const found = run();
    if (count == 0 || std::memcmp(found.data(), expected.data(), count * sizeof(Out)) == 0) return;
    for (std::size_t i = 0; i < count; ++i) {
      CAPTURE(i, F::name, float(found[i]), float(expected[i]));
      REQUIRE(std::memcmp(&found[i], &expected[i], sizeof(Out)) == 0);
    }
  });
}

}  // namespace prismaquant::test
