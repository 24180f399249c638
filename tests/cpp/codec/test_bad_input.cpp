#include <limits>
#include <vector>

#include "prismaquant/codec/codec.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace prismaquant;

TEST_CASE("columns that the group size does not divide are refused, naming axis and group") {
  test::random_matrix const weights(2, 40, 1);
  REQUIRE_THROWS_AS(encode<nvfp4>(weights.view()), shape_error);
  REQUIRE_THROWS_WITH(encode<nvfp4>(weights.view()),
                      "weight: columns (axis 1) = 40 is not a multiple of the group size 16 of nvfp4");
  REQUIRE_THROWS_WITH(encode<mxfp8_e4m3>(weights.view()),
                      "weight: columns (axis 1) = 40 is not a multiple of the group size 32 of mxfp8_e4m3");
  REQUIRE_NOTHROW(encode<fp8_e4m3_channel>(weights.view()));
}

TEMPLATE_LIST_TEST_CASE("NaN and infinity are refused with their count and place", "", format_list) {
  test::random_matrix weights(3, 128, 2);
  weights.elements[136] = std::numeric_limits<float>::quiet_NaN();
  weights.elements[137] = -std::numeric_limits<float>::infinity();
  weights.elements[300] = std::numeric_limits<float>::quiet_NaN();
  REQUIRE_THROWS_AS(encode<TestType>(weights.view()), numeric_error);
  REQUIRE_THROWS_WITH(encode<TestType>(weights.view()),
                      "weight: 2 NaN and 1 infinite values, the first at row 1, column 8");
}

TEST_CASE("nothing is written when a shape or a global scale is refused") {
  test::random_matrix const weights(1, 16, 3);
  quantized_matrix<nvfp4> taller(2, 16), broken(1, 16, -1.0f);
  REQUIRE_THROWS_AS(encode_into<nvfp4>(weights.view(), taller.view(), serial_executor{}), shape_error);
  REQUIRE_THROWS_AS(encode_into<nvfp4>(weights.view(), broken.view(), serial_executor{}), numeric_error);
  for (auto const* const out : {&taller, &broken}) {
    for (auto const byte : out->codes()) REQUIRE(byte == 0);
  }
}

TEST_CASE("outputs of the wrong shape are refused") {
  test::random_matrix const weights(2, 32, 4);
  quantized_matrix<mxfp4> other(3, 32);
  REQUIRE_THROWS_WITH(encode_into<mxfp4>(weights.view(), other.view(), serial_executor{}),
                      "weight is 2 x 32, the output is for 3 x 32");
  quantized_matrix<mxfp4> right(2, 32);
  auto broken = right.view();
  broken.scales.columns = 5;
  REQUIRE_THROWS_WITH(encode_into<mxfp4>(weights.view(), broken, serial_executor{}), "scales is 2 x 5, expected 2 x 1");
  std::vector<float> values(32);
  REQUIRE_THROWS_AS(decode<mxfp4>(right.view(), view(std::span<float>(values), 1, 32)), shape_error);
  REQUIRE_THROWS_AS(squared_error<mxfp4>(weights.view().part(0, 0, 1, 32), right.view()), shape_error);
}

TEST_CASE("a global scale that is not positive and finite is refused") {
  test::random_matrix const weights(1, 16, 5);
  for (float const bad :
       {0.0f, -1.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    REQUIRE_THROWS_AS(encode<nvfp4>(weights.view(), bad), numeric_error);
  }
}
