#include <algorithm>
#include <cmath>
#include <vector>

#include "prismaquant/codec/codec.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace prismaquant;
using test::random_matrix;

namespace {

template <format F>
float global_scale_for(matrix_view<float const> weights) {
  if constexpr (F::has_global_scale) return F::global_scale(block_amax(weights), 448.0f);
  return 1.0f;
}

template <format F>
std::vector<float> decoded(quantized_matrix<F> const& q) {
  std::vector<float> values(q.rows() * q.columns());
  decode<F>(q.view(), view(std::span<float>(values), q.rows(), q.columns()));
  return values;
}

template <format F>
void require_same(quantized_matrix<F> const& a, quantized_matrix<F> const& b) {
  REQUIRE(a.codes() == b.codes());
  REQUIRE(a.scales() == b.scales());
  REQUIRE(a.extra() == b.extra());
}

// Symmetric integers never write their lowest code.
template <class Element>
bool is_written(typename Element::code_type code) {
  if constexpr (requires { Element::min_value; }) return Element::decode(code) >= Element::min_value;
  return true;
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("every element code round-trips through its storage", "", format_list) {
  using element = typename TestType::element;
  constexpr std::size_t count = std::size_t{1} << element::bits;
  quantized_matrix<TestType> q(2, std::max<std::size_t>(count, 256));
  for (std::size_t i = 0; i < q.columns(); ++i) {
    TestType::layout::put(q.view().codes, 1, i, static_cast<typename element::code_type>(i % count));
  }
  if constexpr (scale_codec<typename TestType::scale>) {  // all scales 1: decoded values are the elements themselves
    if constexpr (has_zero_points<TestType>) {
      for (std::size_t j = 0; j < q.view().scales.columns; ++j)
        TestType::extra::put(q.view().extra, 1, j, element::encode(0));
    }
    auto const one = TestType::scale::from_amax(element::max_value, element::max_value, 1.0f);
    float const value = TestType::scale::decode(one, 1.0f);
    auto const scales = q.view().scales;
    for (std::size_t r = 0; r < scales.rows; ++r) {
      for (std::size_t c = 0; c < scales.columns; ++c) scales(r, c) = one;
    }
    REQUIRE((value == 1.0f || value == 2.0f));  // compressed-tensors' rule maps 448 to the scale 2
    auto const values = decoded(q);
    for (std::size_t i = 0; i < q.columns(); ++i) {
      float const element_value = element::decode(static_cast<typename element::code_type>(i % count));
      if (is_finite(element_value)) REQUIRE(values[q.columns() + i] == element_value * value);
    }
  }
  for (std::size_t i = 0; i < q.columns(); ++i) {
    auto const code = static_cast<typename element::code_type>(TestType::layout::get(q.view().codes, 1, i));
    REQUIRE(code == i % count);
    if (is_finite(element::decode(code)) && is_written<element>(code)) {
      REQUIRE(element::encode(element::decode(code)) == code);
    }
  }
}

TEMPLATE_LIST_TEST_CASE("the error of every element is at most half a step of the element grid", "", format_list) {
  random_matrix const weights(7, 256, 1);
  auto const q = encode<TestType>(weights.view(), global_scale_for<TestType>(weights.view()));
  auto const values = decoded(q);
  double sum = 0.0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    double const difference = double{values[i]} - double{weights.elements[i]};
    REQUIRE(std::fabs(difference) <= 0.04 * (TestType::element::bits == 4 ? 1.0 : 0.25));
    sum += difference * difference;
  }
  REQUIRE(std::fabs(squared_error<TestType>(weights.view(), q.view()) - sum) <= 1e-12 * sum);
}

TEMPLATE_LIST_TEST_CASE("strided, transposed and 16-bit inputs give the bytes of a dense float32 copy", "",
                        format_list) {
  random_matrix const wide(96, 256, 2);
  std::vector<float> transposed(wide.elements.size());
  std::vector<bfloat16> halves(wide.elements.size());
  std::vector<float> rounded(wide.elements.size());
  for (std::size_t r = 0; r < 96; ++r) {
    for (std::size_t c = 0; c < 256; ++c) transposed[c * 96 + r] = wide.view()(r, c);
  }
  for (std::size_t i = 0; i < halves.size(); ++i) {
    halves[i] = bfloat16::round(wide.elements[i]);
    rounded[i] = halves[i];
  }
  float const global_scale = global_scale_for<TestType>(wide.view());
  auto const expected = encode<TestType>(wide.view(), global_scale);
  require_same(encode<TestType>(matrix_view<float const>{transposed.data(), 96, 256, 1, 96}, global_scale), expected);

  auto const narrow = wide.view().part(3, 128, 90, 128);
  std::vector<float> copy;
  for (std::size_t r = 0; r < 90; ++r) {
    for (std::size_t c = 0; c < 128; ++c) copy.push_back(narrow(r, c));
  }
  require_same(encode<TestType>(narrow, global_scale),
               encode<TestType>(view(std::span<float const>(copy), 90, 128), global_scale));
  require_same(encode<TestType>(matrix_view<bfloat16 const>{halves.data(), 96, 256, 256, 1}, global_scale),
               encode<TestType>(view(std::span<float const>(rounded), 96, 256), global_scale));
}

TEMPLATE_LIST_TEST_CASE("bytes and errors do not depend on the number of threads", "", format_list) {
  random_matrix const weights(300, 384, 3);
  float const global_scale = global_scale_for<TestType>(weights.view());
  auto const one = encode<TestType, sweep_rule>(weights.view(), global_scale);
  double const error = squared_error<TestType>(weights.view(), one.view());
  for (std::size_t const threads : {2u, 7u}) {
    thread_executor const executor(threads);
    auto const many = encode<TestType, sweep_rule>(weights.view(), global_scale, executor);
    require_same(one, many);
    REQUIRE(squared_error<TestType>(weights.view(), many.view(), executor) == error);
  }
}

TEMPLATE_LIST_TEST_CASE("blocks of zeros decode to zeros under a positive scale", "", format_list) {
  std::vector<float> const zeros(2 * 128, 0.0f);
  auto const q = encode<TestType>(view(std::span<float const>(zeros), 2, 128),
                                  global_scale_for<TestType>({zeros.data(), 2, 128, 128, 1}));
  REQUIRE(decoded(q) == zeros);
  if constexpr (scale_codec<typename TestType::scale>) {
    for (auto const scale : q.scales()) REQUIRE(TestType::scale::decode(scale, q.global_scale()) > 0.0f);
  }
}

TEMPLATE_LIST_TEST_CASE("subnormal and huge weights stay finite", "", format_list) {
  std::vector<float> values(128, 0x1p-140f);
  for (std::size_t i = 32; i < 128; ++i) values[i] = i % 3 == 0 ? 0x1.fp127f : i % 3 == 1 ? -0x1p-149f : -0x1.fp127f;
  auto const weights = view(std::span<float const>(values), 1, 128);
  for (float const value : decoded(encode<TestType>(weights, global_scale_for<TestType>(weights))))
    REQUIRE(is_finite(value));
}

TEST_CASE("an empty matrix is encoded to nothing") {
  auto const q = encode<nvfp4>(matrix_view<float const>{nullptr, 0, 32, 32, 1});
  REQUIRE(q.codes().empty());
  REQUIRE(squared_error<nvfp4>(matrix_view<float const>{nullptr, 0, 32, 32, 1}, q.view()) == 0.0);
}

TEST_CASE("128 x 128 FP8 blocks may be cut off by the edge, and each has its own scale") {
  random_matrix weights(200, 130, 4);
  weights.elements[0] = 100.0f;
  auto const q = encode<fp8_e4m3_block>(weights.view());
  REQUIRE(q.scales().size() == 4);
  REQUIRE(float(bfloat16{q.scales()[0]}) > 100 * float(bfloat16{q.scales()[3]}));
}

#if defined(__SSE__)
TEST_CASE("a neighbour that flushes subnormals changes nothing") {
  random_matrix const weights(4, 64, 5, 0x1p-130f);
  auto const expected = encode<mxfp4>(weights.view());
  auto const values = decoded(expected);
  unsigned const before = _mm_getcsr();
  _mm_setcsr(before | 0x8040u);
  auto const flushed = encode<mxfp4>(weights.view());
  auto const flushed_values = decoded(flushed);
  _mm_setcsr(before);
  require_same(expected, flushed);
  REQUIRE(values == flushed_values);
}
#endif
