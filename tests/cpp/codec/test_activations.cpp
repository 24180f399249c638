// Quantizing activations as they arrive needs nothing of its own: a token is a row, and the formats whose scales reach
// no further than a row give the same bytes for a row alone as among others.
#include <tuple>
#include <vector>

#include "prismaquant/codec/roundtrip.hpp"
#include "prismaquant/formats/format_list.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace prismaquant;

namespace {
using activation_formats = std::tuple<nvfp4, mxfp4, mxfp8_e4m3, mxfp8_e5m2, fp8_e4m3_token, fp8_e5m2_token, int8_token>;
}

TEMPLATE_LIST_TEST_CASE("a token alone has the bytes that it has in a batch", "", activation_formats) {
  test::random_matrix batch(17, 256, 1, 3.0f);
  for (std::size_t i = 0; i < 256; ++i) batch.elements[5 * 256 + i] *= 1000.0f;  // an outlier token
  constexpr float calibrated = 2688.0f / 12.0f;                                  // static global scale of the inputs
  auto const all = encode<TestType>(batch.view(), calibrated);
  std::vector<float> together(17 * 256), alone(256);
  roundtrip<TestType>(batch.view(), view(std::span<float>(together), 17, 256), calibrated);
  std::size_t const code_words = all.codes().size() / 17, scale_words = all.scales().size() / 17;
  for (std::size_t token = 0; token < 17; ++token) {
    auto const row = batch.view().part(token, 0, 1, 256);
    auto const one = encode<TestType>(row, calibrated);
    for (std::size_t i = 0; i < code_words; ++i) REQUIRE(one.codes()[i] == all.codes()[token * code_words + i]);
    for (std::size_t i = 0; i < scale_words; ++i) REQUIRE(one.scales()[i] == all.scales()[token * scale_words + i]);
    roundtrip<TestType>(row, view(std::span<float>(alone), 1, 256), calibrated);
    for (std::size_t i = 0; i < 256; ++i) REQUIRE(alone[i] == together[token * 256 + i]);
  }
}

TEST_CASE("per-token scales are amax over the largest element in float32, as vLLM computes them") {
  test::random_matrix const batch(4, 64, 2, 3.0f);
  auto const fp8 = encode<fp8_e4m3_token>(batch.view());
  auto const int8 = encode<int8_token>(batch.view());
  for (std::size_t token = 0; token < 4; ++token) {
    float const amax = block_amax(batch.view().part(token, 0, 1, 64));
    REQUIRE(fp8.scales()[token] == amax / 448.0f);
    REQUIRE(int8.scales()[token] == amax / 127.0f);
  }
}

TEST_CASE("tokens beyond the calibrated range saturate block scale and elements") {
  std::vector<float> const token(16, 1000.0f);
  std::vector<float> decoded(16);
  roundtrip<nvfp4>(view(std::span<float const>(token), 1, 16), view(std::span<float>(decoded), 1, 16), 2688.0f);
  for (float const x : decoded) REQUIRE(x == 6.0f * (448.0f / 2688.0f));
}
