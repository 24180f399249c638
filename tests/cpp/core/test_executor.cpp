#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

#include "prismaquant/core/executor.hpp"
#include "prismaquant/core/fp_environment.hpp"
#include "support/catch.hpp"

using namespace prismaquant;

static_assert(executor<serial_executor> && executor<thread_executor>);

TEST_CASE("every index is visited exactly once, whatever the number of threads") {
  auto const threads = GENERATE(std::size_t{1}, std::size_t{2}, std::size_t{7});
  auto const count = GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{5}, std::size_t{1000});
  std::vector<std::atomic<int>> visits(count);
  thread_executor(threads).for_ranges(count, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) ++visits[i];
  });
  for (auto const& n : visits) REQUIRE(n == 1);
}

TEST_CASE("an exception in a worker reaches the caller, the lowest range first") {
  auto const fail = [](std::size_t begin, std::size_t) {
    throw std::runtime_error("range at " + std::to_string(begin));
  };
  REQUIRE_THROWS_WITH(thread_executor(4).for_ranges(8, fail), "range at 0");
  REQUIRE_THROWS_WITH(thread_executor(4).for_ranges(8,
                                                    [](std::size_t begin, std::size_t) {
                                                      if (begin != 0) throw std::runtime_error("a worker");
                                                    }),
                      "a worker");
}

TEST_CASE("the default number of threads is that of the hardware") { REQUIRE(thread_executor().threads() >= 1); }

#if defined(__SSE__)
TEST_CASE("the floating-point guard keeps subnormals and restores what it found") {
  unsigned const before = _mm_getcsr();
  _mm_setcsr(before | 0x8040u);  // flush to zero, denormals are zero
  float volatile tiny = 0x1p-127f;
  {
    fp_environment_guard const guard;
    float volatile kept = tiny * 6.0f;
    REQUIRE(kept == 6.0f * 0x1p-127f);
    REQUIRE(kept > 0.0f);
  }
  REQUIRE((_mm_getcsr() & 0x8040u) == 0x8040u);
  _mm_setcsr(before);
}
#endif
