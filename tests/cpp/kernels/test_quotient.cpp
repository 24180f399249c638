// The corrected quotient of codec/kernels/encode.hpp lies on the same side of every rounding threshold as the rounded one.
//
// Powers of two change nothing, so that significands of the scale and of the threshold are all there is to try; and only
// weights next to scale * threshold can fall on another side. PRISMAQUANT_TEST_FLOATS=all: all scales for thresholds of
// up to 9 bits; otherwise all for up to 5 bits (E2M1 and FP8), every 101st for the others.
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "prismaquant/core/executor.hpp"
#include "support/catch.hpp"

namespace {

int side(float quotient, float threshold) { return (quotient > threshold) - (quotient < threshold); }

float corrected(float weight, float scale, float inverse) {
  float const near = weight * inverse;
  return std::fma(-std::fma(near, scale, -weight), inverse, near);
}

bool same_side_around(float scale, float threshold) {
  float const inverse = 1.0f / scale;
  float const middle = scale * threshold;
  float weight = std::nextafter(std::nextafter(middle, 0.0f), 0.0f);
  for (int i = 0; i < 5; ++i, weight = std::nextafter(weight, INFINITY)) {
    if (side(weight / scale, threshold) != side(corrected(weight, scale, inverse), threshold)) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("a corrected quotient is on the right side of every threshold") {
  char const* const wanted = std::getenv("PRISMAQUANT_TEST_FLOATS");
  bool const all = wanted != nullptr && std::string_view(wanted) == "all";
  constexpr std::size_t first = 1u << 23;
  std::atomic<unsigned> wrong = 0;
  prismaquant::thread_executor(2).for_ranges(first, [&](std::size_t begin, std::size_t end) {
    for (int threshold = 1; threshold < 512; threshold += 2) {
      std::size_t const step = all || threshold < 32 ? 1 : 101;
      for (std::size_t s = first + begin; s < first + end; s += step) {
        if (!same_side_around(static_cast<float>(s), static_cast<float>(threshold))) ++wrong;
      }
    }
  });
  REQUIRE(wrong == 0);
}
