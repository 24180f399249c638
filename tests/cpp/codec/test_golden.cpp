// Golden bytes: one row of 32 bfloat16 values, encoded by an independent implementation of the compressed-tensors
// formulas (plain Python over exact float32 arithmetic) and confirmed byte for byte by compressed-tensors 0.20.
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

template <format F>
quantized_matrix<F> encode_golden(float global_scale = 1.0f) {
  auto const row = golden_row();
  return encode<F>(matrix_view<bfloat16 const>{row.data(), 1, row.size(), 32, 1}, global_scale);
}

}  // namespace

TEST_CASE("golden NVFP4") {
  float const global_scale = nvfp4::global_scale(1.5f, 448.0f);
  REQUIRE(global_scale == 1792.0f);
  auto const q = encode_golden<nvfp4>(global_scale);
  REQUIRE(hex(q.scales()) == "7e5c");
  REQUIRE(hex(q.codes()) == "102a4b5c6d6e7e7fefdebc0931546677");
  std::vector<float> decoded(32);
  decode<nvfp4>(q.view(), matrix_view<float>{decoded.data(), 1, 32, 32, 1});
  decoded.resize(8);
  REQUIRE(decoded == std::vector<float>{0.0f, 0.125f, -0.25f, 0.25f, -0.375f, 0.5f, -0.5f, 0.75f});
}

TEST_CASE("golden MXFP4") {
  auto const q = encode_golden<mxfp4>();
  REQUIRE(hex(q.scales()) == "7d");
  REQUIRE(hex(q.codes()) == "102a4b5c6d6e7e7f8988880800000011");
}

TEST_CASE("golden MXFP8") {
  auto const q = encode_golden<mxfp8_e4m3>();
  REQUIRE(hex(q.scales()) == "77");
  REQUIRE(hex(q.codes()) == "005de56aed70f273f576f879fa7afb7cd9d7d5d2cfcac200424a4f525557595a");
}

TEST_CASE("golden FP8 per channel: the bfloat16 scale is rounded down, the largest value saturates") {
  auto const q = encode_golden<fp8_e4m3_channel>();
  REQUIRE(hex(q.scales()) == "3b5b");
  REQUIRE(hex(q.codes()).substr(0, 16) == "005fe76bef71f375");
  REQUIRE(q.codes()[15] == 0x7e);
}
