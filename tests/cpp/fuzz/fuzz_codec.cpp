// libFuzzer: random matrices in random memory, any format, rule, type and instruction set. Every instruction set must
// give the bytes of the scalar codec, write nothing but its outputs, and throw where it throws.
//
// The input: a few bytes that choose, then the weights, importance and scales as raw bits. See tests/run.sh --fuzz.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "prismaquant/codec/kernels/library.hpp"
#include "prismaquant/codec/roundtrip.hpp"
#include "prismaquant/formats/format_list.hpp"

using namespace prismaquant;

namespace {

using bytes = std::vector<std::uint8_t>;

// The fuzzer's bytes; zeros when they are used up.
class input {
 public:
  input(std::uint8_t const* data, std::size_t size) : data_(data), left_(size) {}

  template <class T>
  T take() {
    T value{};
    std::size_t const n = std::min(left_, sizeof(T));
    if (n != 0) std::memcpy(&value, data_, n);
    data_ += n;
    left_ -= n;
    return value;
  }
  std::size_t below(std::size_t limit) { return take<std::uint8_t>() % limit; }

 private:
  std::uint8_t const* data_;
  std::size_t left_;
};

// A matrix in exactly as much memory as it reaches over, so that the address sanitizer sees any touch beside it.
template <class T>
struct placed {
  std::vector<T> memory;
  matrix_view<T> view;

  placed(input& in, std::size_t rows, std::size_t columns) {
    auto const m = static_cast<std::ptrdiff_t>(rows), n = static_cast<std::ptrdiff_t>(columns);
    std::ptrdiff_t row = n, column = 1;
    switch (in.below(8)) {
      case 0:
        row = n + static_cast<std::ptrdiff_t>(in.below(9));
        break;
      case 1:
        row = 1, column = m;
        break;
      case 2:
        column = 1 + static_cast<std::ptrdiff_t>(in.below(4)), row = column * n;
        break;
      default:
        break;
    }
    std::size_t const flips = in.below(8);
    if (flips == 1) row = -row;
    if (flips == 2) column = -column;
    std::ptrdiff_t low = 0, high = 0;
    if (rows != 0 && columns != 0) {
      for (auto const last : {row * (m - 1), column * (n - 1)}) (last < 0 ? low : high) += last;
      memory.resize(static_cast<std::size_t>(high - low) + 1);
    }
    view = {memory.data() - low, rows, columns, row, column};
  }
  void read(input& in) {
    for (std::size_t i = 0; i < view.rows * view.columns; ++i) view(i / view.columns, i % view.columns) = in.take<T>();
  }
};

template <class T>
void append(bytes& to, std::vector<T> const& words) {
  if (words.empty()) return;
  auto const before = to.size();
  to.resize(before + words.size() * sizeof(T));
  std::memcpy(to.data() + before, words.data(), words.size() * sizeof(T));
}

[[noreturn]] void fail(std::string const& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::abort();
}

// run() under every instruction set: the same bytes, or the same error.
template <class Run>
bytes everywhere(std::string const& what, Run&& run) {
  bytes expected;
  std::string expected_error;
  for (auto const& isa : available_isas()) {  // "scalar" first
    use_isa(isa);
    bytes found;
    std::string error;
    try {
      found = run();
    } catch (prismaquant::error const& e) {
      error = e.what();
    }
    if (isa == "scalar") {
      expected = found;
      expected_error = error;
    } else if (error != expected_error) {
      fail(what + " by " + isa + ": '" + error + "', expected '" + expected_error + "'");
    } else if (found != expected) {
      fail(what + " by " + isa + ": other bytes");
    }
  }
  return expected;
}

float positive(float value) { return is_finite(value) && value != 0.0f ? magnitude(value) : 1.0f; }

template <class Code>
Code valid_scale(Code code) {
  if constexpr (std::same_as<Code, float>) return positive(code);
  if constexpr (sizeof(Code) == 2) return static_cast<Code>(1 + code % 0x7f00);
  if constexpr (sizeof(Code) == 1) return static_cast<Code>(1 + code % 126);
}

// Executors of one type, so that there is one instantiation of each function.
template <format F, scale_rule Rule, weight_type T, weight_type Out>
void fuzz_one(input& in) {
  thread_executor const threads(1 + in.below(3));
  std::size_t const rows = in.below(20);
  std::size_t const group = F::ragged_blocks ? 1 : F::block_shape::columns;
  std::size_t const columns = group * in.below(F::ragged_blocks ? 140 : group < 64 ? 9 : 4);
  float const g = F::has_global_scale ? positive(in.take<float>()) : 1.0f;
  encode_options options;
  options.saturate = in.below(4) == 0;
  bool const weighted = in.below(3) == 0, tame = in.below(4) != 0;
  auto const shape = stored<F>(rows, columns);
  placed<typename F::layout::word> codes(in, shape.code_rows, shape.code_columns);
  placed<typename F::scale::code_type> scales(in, shape.scale_rows, shape.scale_columns);
  placed<typename F::extra::word> extra(in, shape.extra_rows, shape.extra_columns);
  placed<float> importance(in, weighted ? rows : 0, weighted ? columns : 0);
  placed<Out> out(in, rows, columns);
  placed<T> weights(in, rows, columns);
  weights.read(in);
  importance.read(in);
  for (auto& h : importance.memory) h = is_finite(h) ? magnitude(h) : 0.0f;
  if (weighted) options.importance = importance.view;
  for (auto& w : weights.memory) {
    if (tame && !is_finite(w)) w = T{};
  }
  if constexpr (std::same_as<Rule, given_rule> && has_scales<F>) {
    scales.read(in);
    for (auto& code : scales.memory) code = valid_scale(code);
  }
  quantized_view<F> const q{rows, columns, codes.view, scales.view, g, extra.view};
  matrix_view<T const> const source = weights.view;
  std::string const name = std::string(F::name) + ' ' + std::string(Rule::name);
  bytes const encoded = everywhere(name + " encode", [&] {
    encode_into<F, Rule>(source, q, threads, options);
    bytes all;
    append(all, codes.memory);
    append(all, scales.memory);
    append(all, extra.memory);
    return all;
  });
  if (encoded.empty()) return;  // an empty matrix, or a refused one: codes are then unspecified
  bytes const decoded = everywhere(name + " decode", [&] {
    decode<F>(const_quantized_view<F>(q), out.view, threads);
    bytes all;
    append(all, out.memory);
    return all;
  });
  if constexpr (!std::same_as<Rule, given_rule> && std::same_as<T, Out>) {
    bytes const fused = everywhere(name + " roundtrip", [&] {
      roundtrip<F, Rule>(source, out.view, g, threads, options);
      bytes all;
      append(all, out.memory);
      return all;
    });
    if (fused != decoded) fail(name + ": roundtrip is not encode and decode");
  }
  if constexpr (std::same_as<Rule, amax_rule>) {
    everywhere(name + " error", [&] {
      auto const e = error_of<F>(source, const_quantized_view<F>(q), threads);
      bytes all;
      append(all, std::vector<double>{e.squared_error, e.squared_weight, e.max_error});
      return all;
    });
  }
}

template <format F, scale_rule Rule>
void fuzz_types(input& in) {
  switch (in.below(5)) {
    case 0:
      return fuzz_one<F, Rule, bfloat16, bfloat16>(in);
    case 1:
      return fuzz_one<F, Rule, float16, float16>(in);
    case 2:
      return fuzz_one<F, amax_rule, float, bfloat16>(in);
    default:
      return fuzz_one<F, Rule, float, float>(in);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  input in(data, size);
  std::size_t const format = in.below(std::tuple_size_v<format_list>);
  std::size_t const rule = in.below(std::tuple_size_v<scale_rule_list>);
  std::size_t f = 0;
  for_each_format([&]<prismaquant::format F>(F) {
    if (f++ != format) return;
    std::size_t r = 0;
    for_each_named<scale_rule_list>([&]<scale_rule Rule>(Rule) {
      if (r++ != rule) return;
      constexpr bool is_amax = std::same_as<Rule, sweep_rule> && !sweep_rule::swept<F>;
      if constexpr (Rule::template applies<F> && !is_amax) {
        fuzz_types<F, Rule>(in);
      } else {
        fuzz_types<F, amax_rule>(in);
      }
    });
  });
  return 0;
}
