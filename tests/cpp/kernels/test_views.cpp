// Rows of every length, laid out in every way, in and out, of every type: the bytes of the scalar codec on dense
// matrices, and nothing else touched: memory ends or begins at pages that cannot be accessed.
#include "kernels/arranged.hpp"
#include "kernels/everywhere.hpp"
#include "support/random_matrix.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

// One type of executor, never a temporary: each would be another instantiation of the codec.
thread_executor const alone(1), pair(2), three(3);

// The elements of a matrix that a call wrote; everything around them must still be as it was.
template <class T>
void take(bytes& to, arranged<T>& m) {
  auto const elements = m.take();
  append(to, std::span<T const>(elements));
  REQUIRE(m.is_empty());
}

template <format F, scale_rule Rule, weight_type T>
void require_encode(std::vector<float> const& values, std::size_t rows, std::size_t columns) {
  auto const dense = rounded<T>(values);
  auto const weights = view(std::span<T const>(dense), rows, columns);
  float const g = global_scale_for<Rule, F>(block_amax(weights));
  constexpr bool weighted = uses_importance<Rule, F>;
  std::vector<float> importance(weighted ? rows * columns : 0);
  for (std::size_t i = 0; i < importance.size(); ++i) importance[i] = static_cast<float>(i % 5);
  auto const shape = stored<F>(rows, columns);
  for (std::size_t k = 0; k < arrangements.size(); ++k) {
    auto const& how = arrangements[k];
    auto const& where = arrangements[(k + columns) % arrangements.size()];
    bool const at_start = (k + columns / 2) % 2 == 0;
    arranged<T> source(how, rows, columns, at_start);
    source.set(dense);
    arranged<typename F::layout::word> codes(where, shape.code_rows, shape.code_columns, at_start);
    arranged<typename F::scale::code_type> scales(where, shape.scale_rows, shape.scale_columns, at_start);
    arranged<typename F::extra::word> extra(where, shape.extra_rows, shape.extra_columns, at_start);
    arranged<float> counts(how, weighted ? rows : 0, weighted ? columns : 0, at_start);
    counts.set(importance);
    quantized_view<F> const out{rows, columns, codes.view(), scales.view(), g, extra.view()};
    for (bool const with_importance : {false, true}) {
      if (with_importance && !weighted) continue;
      encode_options there, here;
      if (with_importance) {
        there.importance = view(std::span<float const>(importance), rows, columns);
        here.importance = counts.view();
      }
      auto const expected = on_scalar([&] { return bytes_of(encode<F, Rule>(weights, g, alone, there)); });
      on_every_isa([&] {
        CAPTURE(F::name, Rule::name, rows, columns, how.name, where.name, with_importance);
        encode_into<F, Rule>(matrix_view<T const>(source.view()), out, alone, here);
        bytes found;
        take(found, codes);
        take(found, scales);
        take(found, extra);
        require_equal(found, expected, "encode");
      });
    }
  }
}

template <format F, weight_type Out>
void require_decode(std::vector<float> const& values, std::size_t rows, std::size_t columns) {
  auto const weights = view(std::span<float const>(values), rows, columns);
  auto const q =
      on_scalar([&] { return encode<F>(weights, global_scale_for<amax_rule, F>(block_amax(weights)), alone); });
  std::vector<Out> dense(rows * columns);
  on_scalar([&] {
    decode<F>(q.view(), view(std::span<Out>(dense), rows, columns), alone);
    return 0;
  });
  auto const expected = bytes_of(dense);
  for (auto const& how : arrangements) {
    arranged<Out> out(how, rows, columns, columns % 2 == 0);
    on_every_isa([&] {
      CAPTURE(F::name, rows, columns, how.name);
      decode<F>(q.view(), out.view(), alone);
      bytes found;
      take(found, out);
      require_equal(found, expected, "decode");
      roundtrip<F>(weights, out.view(), q.global_scale(), alone);
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
      auto const q = on_scalar([&] { return encode<TestType>(weights, g, alone); });
      require_same_everywhere("error_of", [&] { return bytes_of(error_of<TestType>(weights, q.view(), alone)); });
      auto const expected = on_scalar([&] { return bytes_of(error_of<TestType>(weights, q.view(), alone)); });
      require_same_everywhere("encoding_error", [&] { return bytes_of(encoding_error<TestType>(weights, g, alone)); });
      on_every_isa([&] {
        require_equal(bytes_of(encoding_error<TestType>(weights, g, three)), expected, "3 threads");
        require_equal(bytes_of(error_of<TestType>(weights, q.view(), pair)), expected, "2 threads");
        REQUIRE(squared_error<TestType>(weights, q.view(), alone) ==
                error_of<TestType>(weights, q.view(), alone).squared_error);
      });
    });
  });
}
