#include <vector>

#include "prismaquant/adapt/xtensor.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "prismaquant/solver/solver_list.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace prismaquant;

namespace {

xt::xarray<float> random_array(std::size_t rows, std::size_t columns) {
  test::random_matrix const source(rows, columns, 11);
  xt::xarray<float> array = xt::zeros<float>({rows, columns});
  std::copy(source.elements.begin(), source.elements.end(), array.begin());
  return array;
}

// The same elements through a dense copy.
template <class E>
std::vector<float> copy_of(E const& expression) {
  return {expression.begin(), expression.end()};
}

template <format F, class E>
void require_codec_and_solver_agree_with_a_copy(E& expression) {
  auto const rows = static_cast<std::size_t>(expression.shape()[0]);
  auto const columns = static_cast<std::size_t>(expression.shape()[1]);
  auto const dense = copy_of(expression);
  matrix_view<float const> const borrowed = view(expression);
  auto const copied = view(std::span<float const>(dense), rows, columns);
  REQUIRE(encode<F>(borrowed).codes() == encode<F>(copied).codes());
  auto const a = solve<scale_sweep, F>(borrowed);
  auto const b = solve<scale_sweep, F>(copied);
  REQUIRE(a.quantized.codes() == b.quantized.codes());
  REQUIRE(a.quantized.scales() == b.quantized.scales());
}

}  // namespace

TEST_CASE("a codec and a solver run on xt::xarray, xt::view and a strided view without a copy") {
  auto array = random_array(24, 128);
  REQUIRE(view(array).data == array.data());
  require_codec_and_solver_agree_with_a_copy<nvfp4>(array);

  auto part = xt::view(array, xt::range(3, 17), xt::range(32, 96));
  REQUIRE(view(part).data == array.data() + 3 * 128 + 32);
  require_codec_and_solver_agree_with_a_copy<mxfp4>(part);

  auto strided = xt::view(array, xt::range(0, 24, 3), xt::range(0, 128, 2));
  REQUIRE(view(strided).column_stride == 2);
  require_codec_and_solver_agree_with_a_copy<nvfp4>(strided);
  require_codec_and_solver_agree_with_a_copy<fp8_e4m3_channel>(strided);
}

TEST_CASE("a single row, whose stride xtensor reports as zero, is read right") {
  auto array = random_array(1, 64);
  require_codec_and_solver_agree_with_a_copy<nvfp4>(array);
}

TEST_CASE("decoding writes through an xtensor container") {
  auto array = random_array(4, 32);
  auto const q = encode<mxfp8_e4m3>(matrix_view<float const>(view(array)));
  xt::xarray<float> out = xt::zeros<float>({4, 32});
  decode<mxfp8_e4m3>(q.view(), view(out));
  std::vector<float> expected(4 * 32);
  decode<mxfp8_e4m3>(q.view(), view(std::span<float>(expected), 4, 32));
  REQUIRE(copy_of(out) == expected);
}

TEST_CASE("an expression without two axes is refused") {
  xt::xarray<float> cube = xt::zeros<float>({2, 3, 4});
  REQUIRE_THROWS_WITH(view(cube), "an xtensor expression of 3 axes was given, expected 2 (rows, columns)");
}

static_assert(!strided_expression<decltype(std::declval<xt::xarray<float>&>() + 1.0f)>,
              "lazy expressions are not borrowed");
