// Kernels give the bytes of the scalar codec: shapes, strides, threads, floating-point environments.
#include <cmath>
#include <cstdlib>

#include "kernels/parity.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

TEMPLATE_LIST_TEST_CASE("rows of 1 to 130 columns", "", kernel_formats) {
  for (std::size_t columns = 1; columns <= 130; ++columns) {
    if (!why_not<TestType>(columns).empty()) continue;
    auto const m = hostile_matrix(3, columns, static_cast<unsigned>(columns));
    float const g = own_global_scale<TestType>(m.view());
    require_encode_parity<TestType, amax_rule>(m.view(), g);
    require_encode_parity<TestType, sweep_rule>(m.view(), g);
    auto const q = on_scalar([&] { return encode<TestType>(m.view(), g); });
    require_decode_parity<TestType, float>(q.view());
    require_decode_parity<TestType, bfloat16>(q.view());
    require_decode_parity<TestType, float16>(q.view());
  }
}

TEMPLATE_LIST_TEST_CASE("long rows, and every number of groups in the last chunk", "", kernel_formats) {
  for (std::size_t columns = 1024; columns <= 2048 + 512; columns += 32) {
    if (!why_not<TestType>(columns).empty()) continue;
    auto const m = hostile_matrix(2, columns, static_cast<unsigned>(columns));
    float const g = own_global_scale<TestType>(m.view());
    require_encode_parity<TestType, amax_rule>(m.view(), g);
    auto const q = on_scalar([&] { return encode<TestType>(m.view(), g); });
    require_decode_parity<TestType, float>(q.view());
    require_decode_parity<TestType, bfloat16>(q.view());
    require_decode_parity<TestType, float16>(q.view());
  }
}

TEMPLATE_LIST_TEST_CASE("strided, transposed, reversed and unaligned views", "", kernel_formats) {
  auto const m = hostile_matrix(160, 256, 5);
  float const g = own_global_scale<TestType>(m.view());
  require_encode_parity<TestType, amax_rule>(m.view().part(3, 1, 150, 128), g);  // rows start at odd places
  require_encode_parity<TestType, amax_rule>(matrix_view<float const>{m.elements.data(), 256, 128, 1, 256}, g);
  require_encode_parity<TestType, amax_rule>(matrix_view<float const>{&m.elements[255], 160, 256, 256, -1}, g);
  require_encode_parity<TestType, amax_rule>(matrix_view<float const>{m.elements.data(), 160, 128, 256, 2}, g);
  require_encode_parity<TestType, amax_rule>(matrix_view<float const>{m.elements.data(), 5, 128, 0, 1}, g);
}

TEMPLATE_LIST_TEST_CASE("bfloat16 and float16 weights", "", kernel_formats) {
  auto const m = hostile_matrix(7, 1408, 6);
  float const g = own_global_scale<TestType>(m.view());
  std::vector<bfloat16> b;
  std::vector<float16> h;
  std::mt19937 generator(7);
  for (auto const x : m.elements) {
    b.push_back(bfloat16::round(x));
    auto const any = static_cast<std::uint16_t>(generator());
    h.push_back({static_cast<std::uint16_t>((any & 0x7c00u) == 0x7c00u ? any & 0x83ffu : any)});
  }
  require_encode_parity<TestType, amax_rule>(matrix_view<bfloat16 const>{b.data(), 7, 1408, 1408, 1}, g);
  require_encode_parity<TestType, amax_rule>(matrix_view<float16 const>{h.data(), 7, 1408, 1408, 1}, g);
  require_encode_parity<TestType, sweep_rule>(matrix_view<bfloat16 const>{b.data(), 7, 1408, 1408, 1}, g);
}

TEMPLATE_LIST_TEST_CASE("1, 2 and 7 threads", "", kernel_formats) {
  auto const m = hostile_matrix(64, 256, 8);
  float const g = own_global_scale<TestType>(m.view());
  for (std::size_t const threads : {1u, 2u, 7u}) {
    require_encode_parity<TestType, amax_rule>(m.view(), g, thread_executor(threads));
    require_encode_parity<TestType, sweep_rule>(m.view(), g, thread_executor(threads));
  }
}

TEMPLATE_LIST_TEST_CASE("global scales at the ends of their range", "", kernel_formats) {
  auto const m = hostile_matrix(2, 384, 9);
  for (float const g : {0x1p-149f, 0x1p-126f, 1e-30f, 1e-3f, 1.0f, 1e9f, 1e30f, 0x1.fffffep127f}) {
    require_encode_parity<TestType, amax_rule>(m.view(), g);
    auto const q = on_scalar([&] { return encode<TestType>(m.view(), g); });
    require_decode_parity<TestType, float>(q.view());
    require_decode_parity<TestType, bfloat16>(q.view());
    require_decode_parity<TestType, float16>(q.view());
  }
}

TEMPLATE_LIST_TEST_CASE("kernels refuse NaN and infinity as the scalar codec does", "", kernel_formats) {
  for (float const bad : {std::nanf(""), -INFINITY, INFINITY}) {
    for (std::size_t const place : {std::size_t{0}, std::size_t{700}, std::size_t{2 * 1152 - 1}}) {
      random_matrix m(2, 1152, 10);
      m.elements[place] = bad;
      on_every_isa([&] { REQUIRE_THROWS_AS(encode<TestType>(m.view()), numeric_error); });
    }
  }
}

#if defined(__SSE__)
TEMPLATE_LIST_TEST_CASE("a neighbour that flushes subnormals", "", kernel_formats) {
  random_matrix const m(4, 384, 11, 0x1p-130f);
  auto const expected = on_scalar([&] { return encode<TestType>(m.view(), 1e30f); });
  unsigned const before = _mm_getcsr();
  on_every_isa([&] {
    _mm_setcsr(before | 0x8040u);
    auto const found = encode<TestType>(m.view(), 1e30f);
    _mm_setcsr(before);
    REQUIRE(same(found, expected));
  });
}
#endif

TEMPLATE_LIST_TEST_CASE("given scales stay as they are", "", kernel_formats) {
  if constexpr (has_scales<TestType> && given_rule::applies<TestType>) {
    auto const m = hostile_matrix(3, 384, 12);
    auto const run = [&] {
      auto q = encode<TestType>(m.view(), 1.0f);
      for (std::size_t i = 0; i < q.view().scales.rows; ++i)
        for (std::size_t j = 0; j < q.view().scales.columns; ++j)
          q.view().scales(i, j) = TestType::scale::from_amax(5.0f, 6.0f, 1.0f);
      encode_into<TestType, given_rule>(m.view(), q.view(), serial_executor{});
      return q;
    };
    auto const expected = on_scalar(run);
    for (auto const code : expected.scales()) REQUIRE(code == TestType::scale::from_amax(5.0f, 6.0f, 1.0f));
    on_every_isa([&] { REQUIRE(same(run(), expected)); });
  }
}

TEMPLATE_LIST_TEST_CASE("options give the bytes of the scalar codec", "", kernel_formats) {
  auto m = hostile_matrix(3, 384, 13);
  std::vector<float> importance(384, 1.0f);
  for (std::size_t c = 0; c < 384; c += 3) importance[c] = 100.0f;
  encode_options options;
  options.importance = {importance.data(), 3, 384, 0, 1};
  auto const weighted = [&] { return encode<TestType, sweep_rule>(m.view(), 9.0f, serial_executor{}, options); };
  auto const expected = on_scalar(weighted);
  on_every_isa([&] { REQUIRE(same(weighted(), expected)); });

  m.elements[77] = -INFINITY;
  auto const saturated = [&] { return encode<TestType>(m.view(), 9.0f, serial_executor{}, {{}, true}); };
  auto const finite = on_scalar(saturated);
  on_every_isa([&] { REQUIRE(same(saturated(), finite)); });
}

TEST_CASE("an instruction set that does not exist is refused, with the choices") {
  REQUIRE_THROWS_AS(use_isa("avx1024"), format_error);
  REQUIRE_THROWS_WITH(use_isa("avx1024"),
                      Catch::Contains("instruction set 'avx1024' is not available; this processor can run: scalar, "));
}

TEST_CASE("the environment names the instruction set, or the error names it") {
  char const* const wanted = std::getenv("PRISMAQUANT_ISA");
  if (wanted != nullptr && std::string(wanted) == "nonsense") {
    REQUIRE_THROWS_WITH(
        active_kernels(),
        Catch::Contains("PRISMAQUANT_ISA 'nonsense' is not available; this processor can run: scalar, "));
  } else if (wanted != nullptr) {
    REQUIRE(std::string(active_kernels().isa) == wanted);
  } else {
    REQUIRE(active_kernels().isa == available_isas().back());
  }
}
