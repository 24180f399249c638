// Rows of every length, laid out in every way, in and out, of every type: the bytes of the scalar codec on dense
// matrices, and nothing else touched.
#include <utility>

#include "kernels/arranged.hpp"
#include "kernels/everywhere.hpp"
#include "support/random_matrix.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

template <class T>
constexpr T filler() {
  if constexpr (std::same_as<T, bfloat16> || std::same_as<T, float16>) {
    return T{0x5a5a};
  } else {
    return static_cast<T>(0x5a);
  }
}

template <class T>
bool is_filler(T const& x) {
  T const f = filler<T>();
  return std::memcmp(&x, &f, sizeof(T)) == 0;
}

// The elements of a matrix that a call wrote; everything around them must still be as it was.
template <class T>
void take(bytes& to, arranged<T>& m) {
  append(to, std::span<T const>(m.take(filler<T>())));
  REQUIRE(std::all_of(m.memory().begin(), m.memory().end(), is_filler<T>));
}

template <format F, scale_rule Rule, weight_type T>
void require_encode(std::vector<float> const& values, std::size_t rows, std::size_t columns) {
  auto const dense = rounded<T>(values);
  auto const weights = view(std::span<T const>(dense), rows, columns);
  float const g = global_scale_for<Rule, F>(block_amax(weights));
  auto const expected = on_scalar([&] { return bytes_of(encode<F, Rule>(weights, g)); });
  auto const shape = stored<F>(rows, columns);
  using word = typename F::layout::word;
  using scale = typename F::scale::code_type;
  using extra = typename F::extra::word;
  std::size_t before = columns % 5;  // elements: not a multiple of a vector
  for (std::size_t k = 0; k < arrangements.size(); ++k) {
    auto const& how = arrangements[k];
    auto const& where = arrangements[(k + columns) % arrangements.size()];
    arranged<T> source(how, rows, columns, before, filler<T>());
    source.set(dense);
    arranged<word> codes(where, shape.code_rows, shape.code_columns, before, filler<word>());
    arranged<scale> scales(where, shape.scale_rows, shape.scale_columns, before, filler<scale>());
    arranged<extra> more(where, shape.extra_rows, shape.extra_columns, before, filler<extra>());
    quantized_view<F> const out{rows, columns, codes.view(), scales.view(), g, more.view()};
    on_every_isa([&] {
      CAPTURE(F::name, Rule::name, rows, columns, how.name, where.name);
      encode_into<F, Rule>(matrix_view<T const>(source.view()), out, serial_executor{});
      bytes found;
      take(found, codes);
      take(found, scales);
      take(found, more);
      require_equal(found, expected, "encode");
    });
    if (!std::same_as<Rule, amax_rule>) break;  // other rules differ in the choice only: dense, but unaligned
  }
}

template <format F, weight_type Out>
void require_decode(std::vector<float> const& values, std::size_t rows, std::size_t columns) {
  auto const weights = view(std::span<float const>(values), rows, columns);
  auto const q = on_scalar([&] { return encode<F>(weights, global_scale_for<amax_rule, F>(block_amax(weights))); });
  std::vector<Out> dense(rows * columns);
  on_scalar([&] {
    decode<F>(q.view(), view(std::span<Out>(dense), rows, columns));
    return 0;
  });
  auto const expected = bytes_of(dense);
  for (auto const& how : arrangements) {
    arranged<Out> out(how, rows, columns, columns % 5, filler<Out>());
    on_every_isa([&] {
      CAPTURE(F::name, rows, columns, how.name);
      decode<F>(q.view(), out.view());
      bytes found;
      take(found, out);
      require_equal(found, expected, "decode");
      roundtrip<F>(weights, out.view(), q.global_scale());
      found.clear();
      take(found, out);
      require_equal(found, expected, "roundtrip");
    });
  }
}

// Normal deviates over a few binades, zeros of both signs, and now and then the largest magnitude again.
std::vector<float> some_weights(std::size_t rows, std::size_t columns) {
  auto values = random_matrix(rows, columns, static_cast<unsigned>(rows * 1000 + columns)).elements;
  for (std::size_t i = 0; i < values.size(); i += 7) values[i] *= i % 3 == 0 ? 1e-4f : i % 3 == 1 ? 0.0f : 8.0f;
  return values;
}

template <class Visit>
void for_each_shape(std::size_t group, Visit&& visit) {
  for (std::size_t columns = 1; columns <= 130; ++columns) {
    if (columns % group == 0) visit(columns % 3 + 1, columns);
  }
  for (std::size_t const columns : {256u, 384u, 1152u}) visit(std::size_t{9}, columns);
  visit(std::size_t{131}, std::size_t{128});
}

template <format F>
constexpr std::size_t group_of = F::ragged_blocks ? 1 : F::block_shape::columns;

}  // namespace

TEMPLATE_LIST_TEST_CASE("encoding from and into every arrangement, 1 to 130 columns and more", "", format_list) {
  for_each_shape(group_of<TestType>, [](std::size_t rows, std::size_t columns) {
    auto const values = some_weights(rows, columns);
    for_each_choosing_rule<TestType>([&]<scale_rule Rule>(Rule) {
      for_each_float_type([&]<class T>(T) { require_encode<TestType, Rule, T>(values, rows, columns); });
    });
  });
}

TEMPLATE_LIST_TEST_CASE("decoding and roundtrip into every arrangement, 1 to 130 columns and more", "", format_list) {
  for_each_shape(group_of<TestType>, [](std::size_t rows, std::size_t columns) {
    auto const values = some_weights(rows, columns);
    for_each_float_type([&]<class Out>(Out) { require_decode<TestType, Out>(values, rows, columns); });
  });
}

TEMPLATE_LIST_TEST_CASE("errors are the same numbers under every instruction set, for any threads", "", format_list) {
  for_each_shape(group_of<TestType>, [](std::size_t rows, std::size_t columns) {
    if (columns % 13 != 0 && columns < 130 && group_of<TestType> == 1) return;
    auto const values = some_weights(rows, columns);
    for_each_float_type([&]<class T>(T) {
      auto const dense = rounded<T>(values);
      auto const weights = view(std::span<T const>(dense), rows, columns);
      float const g = global_scale_for<amax_rule, TestType>(block_amax(weights));
      auto const q = on_scalar([&] { return encode<TestType>(weights, g); });
      require_same_everywhere("error_of", [&] { return bytes_of(error_of<TestType>(weights, q.view())); });
      auto const expected = on_scalar([&] { return bytes_of(error_of<TestType>(weights, q.view())); });
      require_same_everywhere("encoding_error", [&] { return bytes_of(encoding_error<TestType>(weights, g)); });
      on_every_isa([&] {
        require_equal(bytes_of(encoding_error<TestType>(weights, g, thread_executor(3))), expected, "3 threads");
        require_equal(bytes_of(error_of<TestType>(weights, q.view(), thread_executor(2))), expected, "2 threads");
        REQUIRE(squared_error<TestType>(weights, q.view()) == error_of<TestType>(weights, q.view()).squared_error);
      });
    });
  });
}
