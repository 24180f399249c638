// No kernel touches memory outside of the rows that it is given: rows end, or begin, at pages that cannot be accessed.
// (Views with strides: test_views.cpp.)
#include <cstring>

#include "kernels/parity.hpp"
#include "support/guarded.hpp"
#include "support/random_matrix.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

template <format F, weight_type T, class Out>
void stay_inside(std::size_t columns, bool at_start) {
  using word = typename F::layout::word;
  using scale = typename F::scale::code_type;
  auto const shape = stored<F>(1, columns);
  guarded const weights(columns * sizeof(T), at_start), codes(shape.code_columns * sizeof(word), at_start);
  guarded const scales(shape.scale_columns * sizeof(scale), at_start), out(columns * sizeof(Out), at_start);
  guarded const extra(shape.extra_rows * shape.extra_columns * sizeof(typename F::extra::word), at_start);
  std::memset(weights.as<char>(), 0x3a, columns * sizeof(T));
  auto const stride = static_cast<std::ptrdiff_t>(columns);
  quantized_view<F> q{1, columns, {codes.as<word>(), 1, shape.code_columns, stride, 1}, {}, 1.0f, {}};
  if constexpr (has_scales<F>) q.scales = {scales.as<scale>(), 1, shape.scale_columns, stride, 1};
  q.extra = {extra.as<typename F::extra::word>(), shape.extra_rows, shape.extra_columns, stride, 1};
  encode_into<F>(matrix_view<T const>{weights.as<T>(), 1, columns, stride, 1}, q, serial_executor{});
  encode_into<F, sweep_rule>(matrix_view<T const>{weights.as<T>(), 1, columns, stride, 1}, q, serial_executor{});
  decode<F>(const_quantized_view<F>(q), matrix_view<Out>{out.as<Out>(), 1, columns, stride, 1});
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("rows between inaccessible pages", "", kernel_formats) {
  on_every_isa([] {
    for (std::size_t columns = 1; columns <= 1100; columns += columns < 130 ? 1 : 13) {
      if (!why_not<TestType>(columns).empty()) continue;
      for (bool const at_start : {false, true}) {
        stay_inside<TestType, float, float>(columns, at_start);
        stay_inside<TestType, bfloat16, bfloat16>(columns, at_start);
        stay_inside<TestType, float16, float>(columns, at_start);
      }
    }
    for (std::size_t columns = 32; columns <= 1600; columns += 32) {
      if (!why_not<TestType>(columns).empty()) continue;
      for (bool const at_start : {false, true}) stay_inside<TestType, float, bfloat16>(columns, at_start);
    }
  });
  SUCCEED();
}

TEMPLATE_LIST_TEST_CASE("outputs larger than the caches are written alike, at any alignment", "", kernel_formats) {
  if constexpr (!std::same_as<typename TestType::extra, no_extra>) return;  // rows of these differ in the extra words
  constexpr std::size_t rows = 1100, columns = 4096;                        // 18 MiB of float32 and more
  random_matrix const small(4, columns, 1);
  auto const one = on_scalar([&] { return encode<TestType>(small.view(), 100.0f); });
  const_quantized_view<TestType> q = one.view();
  q.rows = rows;
  q.codes.rows = rows;
  q.codes.row_stride = 0;  // the same row again and again
  auto const shape = stored<TestType>(rows, columns);
  if constexpr (has_scales<TestType>) {
    q.scales.rows = shape.scale_rows;
    q.scales.row_stride = 0;
  }
  std::vector<float> expected(columns), memory(rows * columns + 64);
  on_scalar([&] {
    const_quantized_view<TestType> first = one.view();
    auto const row = stored<TestType>(1, columns);
    first.rows = first.codes.rows = 1;
    if constexpr (has_scales<TestType>) first.scales.rows = row.scale_rows;
    decode<TestType>(first, view(std::span<float>(expected), 1, columns));
    return 0;
  });
  on_every_isa([&] {
    for (std::size_t const offset : {0u, 1u, 4u, 7u, 16u}) {
      std::fill(memory.begin(), memory.end(), -1.0f);
      decode<TestType>(q, matrix_view<float>{memory.data() + offset, rows, columns, columns, 1});
      for (std::size_t r = 0; r < rows; r += 99) {
        REQUIRE(std::memcmp(memory.data() + offset + r * columns, expected.data(), columns * sizeof(float)) == 0);
      }
      REQUIRE(memory[offset + rows * columns] == -1.0f);
    }
  });
}

TEST_CASE("codes larger than the caches are written alike, at any alignment") {
  constexpr std::size_t rows = 9000, columns = 4096;  // 17.6 MiB of NVFP4 codes, the same weights in every row
  random_matrix const one(1, columns, 3);
  matrix_view<float const> const weights{one.elements.data(), rows, columns, 0, 1};
  auto const expected = on_scalar([&] { return encode<nvfp4>(one.view(), 100.0f); });
  std::vector<std::uint8_t> codes(rows * columns / 2 + 64), scales(rows * columns / 16);
  on_every_isa([&] {
    for (std::size_t const offset : {0u, 1u, 16u, 40u}) {
      quantized_view<nvfp4> const out{rows,
                                      columns,
                                      {codes.data() + offset, rows, columns / 2, columns / 2, 1},
                                      {scales.data(), rows, columns / 16, columns / 16, 1},
                                      100.0f,
                                      {}};
      encode_into<nvfp4>(weights, out, serial_executor{});
      for (std::size_t r = 0; r < rows; r += 311) {
        REQUIRE(std::memcmp(&out.codes(r, 0), expected.codes().data(), columns / 2) == 0);
        REQUIRE(std::memcmp(&out.scales(r, 0), expected.scales().data(), columns / 16) == 0);
      }
    }
  });
}
