// Golden bytes of the integer and code book formats: the row of test_golden.cpp, encoded by an independent
// implementation of the formulas of compressed-tensors and bitsandbytes (plain Python).
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "prismaquant/codec/codec.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "support/catch.hpp"
#include "support/golden_row.hpp"

using namespace prismaquant;
using test::golden_row, test::hex;

namespace {

// `rows` equal rows, each the golden one and then as many zeros as fill the group.
template <format F>
quantized_matrix<F> encode_golden(std::size_t rows = 1, std::size_t columns = 32) {
  std::vector<bfloat16> row = golden_row(), all;
  row.resize(columns);
  for (std::size_t r = 0; r < rows; ++r) all.insert(all.end(), row.begin(), row.end());
  return encode<F>(matrix_view<bfloat16 const>{all.data(), rows, columns, static_cast<std::ptrdiff_t>(columns), 1});
}

}  // namespace

TEST_CASE("golden INT4, symmetric") {
  auto const q = encode_golden<int4_g32>();
  REQUIRE(hex(q.scales()) == "3e4d");
  REQUIRE(hex(q.codes()) == "b5a6a788f1e2e3c48888888888888888");
}

TEST_CASE("golden INT4 with zero points, whose unused rows stay zero") {
  auto const one = encode_golden<int4_g32_asym>();
  REQUIRE(hex(one.scales()) == "3e46");
  REQUIRE(hex(one.codes()) == "b4a59687f0e1d2c37777777777777777");
  REQUIRE(hex(one.extra()) == "00000007");
  REQUIRE(hex(encode_golden<int4_g32_asym>(8).extra()) == "77777777");
  REQUIRE(hex(encode_golden<int4_g32_asym>(9).extra()) == "7777777700000007");
  std::vector<float> decoded(32);
  decode<int4_g32_asym>(one.view(), view(std::span<float>(decoded), 1, 32));
  REQUIRE(decoded[0] == 0.0f);
  REQUIRE(decoded[15] == 8 * 0.193359375f);
}

TEST_CASE("golden INT8 per channel") {
  auto const q = encode_golden<int8_channel>();
  REQUIRE(hex(q.scales()) == "3c41");
  REQUIRE(hex(q.codes()).substr(0, 16) == "0008ef1ade2acd3b");
}

TEST_CASE("golden NF4") {
  auto const q = encode_golden<nf4>(1, 64);
  REQUIRE(q.scales() == std::vector<float>{1.5f});
  REQUIRE(hex(q.codes()).substr(0, 32) == "78694b3c2d1e1f0f6777777777777888");
}

TEST_CASE("golden E4M3, rounded to nearest even") {
  REQUIRE(e4m3::encode(464.0f) == 0x7e);
  REQUIRE(e4m3::encode(0x1p-9f) == 0x01);
  REQUIRE(e4m3::encode(0x1p-10f) == 0x00);
  REQUIRE(e4m3::encode(1.01f * 0x1p-10f) == 0x01);
  REQUIRE(e4m3::encode(1.0625f) == 0x38);
  REQUIRE(e4m3::encode(1.1875f) == 0x3a);
  REQUIRE(e4m3::encode(-0.0f) == 0x80);
}

TEST_CASE("nested scales: equal blocks are exact, and codes do not change") {
  auto const plain = encode_golden<nf4>(3, 128);
  auto const nested = encode_golden<nf4_double>(3, 128);
  REQUIRE(nested.codes() == plain.codes());
  REQUIRE(nested.extra().size() == 2);
  double mean = 0.0;
  for (float const scale : plain.scales()) mean += double{scale} / 6;
  REQUIRE(nested.extra()[0] == static_cast<float>(mean));
  for (std::size_t i = 0; i < 6; ++i) {
    float const decoded = nf4_double::unnest(i, nested.scales()[i], nested.extra().data());
    REQUIRE(std::fabs(decoded - plain.scales()[i]) <= 0.015f);
  }
}
