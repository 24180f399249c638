// What a call gives must not depend on the instruction set: compared as bytes, for any call.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/parity.hpp"
#include "prismaquant/codec/roundtrip.hpp"

namespace prismaquant::test {

using bytes = std::vector<std::uint8_t>;

template <class T>
void append(bytes& to, std::span<T const> words) {
  if (words.empty()) return;
  auto const before = to.size();
  to.resize(before + words.size_bytes());
  std::memcpy(to.data() + before, words.data(), words.size_bytes());
}

template <class T>
bytes bytes_of(std::vector<T> const& words) {
  bytes all;
  append(all, std::span<T const>(words));
  return all;
}

// Codes, scales and extra words.
template <format F>
bytes bytes_of(quantized_matrix<F> const& q) {
  bytes all;
  append(all, std::span(q.codes()));
  append(all, std::span(q.scales()));
  append(all, std::span(q.extra()));
  return all;
}

inline bytes bytes_of(error_summary const& e) {
  return bytes_of(std::vector<double>{e.squared_error, e.squared_weight, e.max_error});
}

// Index of the first byte that differs; -1 if there is none.
inline std::ptrdiff_t first_difference(bytes const& a, bytes const& b) {
  if (a.size() != b.size()) return static_cast<std::ptrdiff_t>(std::min(a.size(), b.size()));
  if (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0) return -1;
  return std::mismatch(a.begin(), a.end(), b.begin()).first - a.begin();
}

inline void require_equal(bytes const& found, bytes const& expected, std::string_view what) {
  auto const at = first_difference(found, expected);
  if (at == -1) return;
  CAPTURE(what, at, found.size(), expected.size());
  FAIL("bytes differ");
}

// run() gives the same bytes under every instruction set as by the scalar codec.
template <class Run>
void require_same_everywhere(std::string_view what, Run&& run) {
  bytes const expected = on_scalar(run);
  on_every_isa([&] { require_equal(run(), expected, what); });
}

// visitor(Rule{}) for every rule that chooses the scales of F by itself and differs from the others.
template <format F, class Visitor>
void for_each_choosing_rule(Visitor&& visitor) {
  for_each_named<scale_rule_list>([&]<scale_rule Rule>(Rule rule) {
    constexpr bool chooses = !std::same_as<Rule, given_rule> && Rule::template applies<F>;
    constexpr bool is_amax = std::same_as<Rule, sweep_rule> && !sweep_rule::swept<F>;
    if constexpr (chooses && !is_amax) visitor(rule);
  });
}

// One type of weights per call: float, bfloat16, float16.
template <class Visitor>
void for_each_float_type(Visitor&& visitor) {
  visitor(float{});
  visitor(bfloat16{});
  visitor(float16{});
}

template <weight_type T>
std::vector<T> rounded(std::vector<float> const& values) {
  std::vector<T> result;
  result.reserve(values.size());
  for (float const x : values) result.push_back(round_to<T>(x));
  return result;
}

}  // namespace prismaquant::test
