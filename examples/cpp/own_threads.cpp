// An engine runs the rows on its own threads, and its C interface reports errors: no exception leaves a thread or it.
// prints: status 0: ok, status 1: weight: 0 NaN and 1 infinite values, the first at row 2, column 5
#include <cmath>
#include <cstdio>
#include <exception>
#include <prismaquant/codec/codec.hpp>
#include <prismaquant/formats/nvfp4.hpp>
#include <thread>
#include <vector>

namespace pq = prismaquant;

// Any class with `for_ranges` is an executor; this one stands for the pool that an engine has. What a range throws (no
// more than std::bad_alloc: errors of arguments and weights are thrown by the calling thread) is thrown again there.
struct engine_threads {
  template <class Body>
  void for_ranges(std::size_t count, Body&& body) const {
    std::exception_ptr failures[2];
    auto const run = [&](std::size_t half) noexcept {
      try {
        body(count * half / 2, count * (half + 1) / 2);
      } catch (...) {
        failures[half] = std::current_exception();
      }
    };
    std::thread other(run, 1);
    run(0);
    other.join();
    for (auto const& failure : failures)
      if (failure) std::rethrow_exception(failure);
  }
};

extern "C" int engine_quantize(float const* weights, std::size_t rows, std::size_t columns, unsigned char* codes,
                               unsigned char* scales, char* message, std::size_t size) noexcept try {
  auto const s = pq::stored<pq::nvfp4>(rows, columns);
  pq::quantized_view<pq::nvfp4> out{rows, columns, {}, {}, 1.0f, {}};
  out.codes = pq::view(std::span(codes, s.code_rows * s.code_columns), s.code_rows, s.code_columns);
  out.scales = pq::view(std::span(scales, s.scale_rows * s.scale_columns), s.scale_rows, s.scale_columns);
  pq::encode_into<pq::nvfp4>(pq::view(std::span(weights, rows * columns), rows, columns), out, engine_threads{});
  std::snprintf(message, size, "ok");
  return 0;
} catch (pq::error const& e) {  // base of every exception of the library
  std::snprintf(message, size, "%s", e.what());
  return 1;
} catch (std::exception const& e) {  // out of memory, no more threads
  std::snprintf(message, size, "%s", e.what());
  return 2;
}

int main() {
  std::vector<float> weights(16 * 32, 0.25f);
  std::vector<unsigned char> codes(weights.size() / 2), scales(weights.size() / 16);
  for (float const value : {0.5f, INFINITY}) {
    weights[2 * 32 + 5] = value;
    char message[200];
    int const status = engine_quantize(weights.data(), 16, 32, codes.data(), scales.data(), message, sizeof message);
    std::printf("%sstatus %d: %s", status == 0 ? "" : ", ", status, message);
  }
  std::puts("");
}
