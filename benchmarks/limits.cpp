// Compiled for the machine at hand (-march=native), unlike everything else here.
#include "limits.hpp"

#include <immintrin.h>

namespace limits {
namespace {

#if defined(__AVX512F__)
using line = __m512i;
line get(char const* p) { return _mm512_loadu_si512(p); }
line either(line a, line b) { return _mm512_or_si512(a, b); }
template <bool Stream>
void put(char* p, line a) {
  if constexpr (Stream) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p), a);
  } else {
    _mm512_storeu_si512(p, a);
  }
}
#else
struct line {
  __m128i part[4];
};
line get(char const* p) {
  auto const* const q = reinterpret_cast<__m128i const*>(p);
  return {{_mm_loadu_si128(q), _mm_loadu_si128(q + 1), _mm_loadu_si128(q + 2), _mm_loadu_si128(q + 3)}};
}
line either(line a, line b) {
  for (int i = 0; i < 4; ++i) a.part[i] = _mm_or_si128(a.part[i], b.part[i]);
  return a;
}
template <bool Stream>
void put(char* p, line a) {
  auto* const q = reinterpret_cast<__m128i*>(p);
  for (int i = 0; i < 4; ++i) Stream ? _mm_stream_si128(q + i, a.part[i]) : _mm_storeu_si128(q + i, a.part[i]);
}
#endif

template <int Read, int Write, int Unroll, int Ahead, bool Stream>
void move(char const* from, char* to, char* scales, std::size_t steps) {
  for (std::size_t i = 0; i < steps; i += Unroll) {
#pragma GCC unroll 8
    for (std::size_t u = 0; u < Unroll; ++u) {
      char const* const in = from + (i + u) * Read * 64;
      line all = get(in);
#pragma GCC unroll 8
      for (int r = 1; r < Read; ++r) all = either(all, get(in + 64 * r));
      if constexpr (Ahead != 0) {
#pragma GCC unroll 8
        for (int r = 0; r < Read; ++r) _mm_prefetch(in + 64 * r + Ahead, _MM_HINT_T0);
      }
#pragma GCC unroll 8
      for (std::size_t w = 0; w < Write; ++w) put<Stream>(to + (i + u) * Write * 64 + 64 * w, all);
      if (scales != nullptr && (i + u) % 8 == 0) put<false>(scales + (i + u) * 8, all);
    }
  }
  if constexpr (Stream) _mm_sfence();
}

template <int R, int W, int Unroll>
void add(std::vector<variant>& to) {
  auto const one = [&]<int Ahead>() {
    std::string const name = "unroll " + std::to_string(Unroll) + ", ahead " + std::to_string(Ahead);
    to.push_back({name + ", plain", move<R, W, Unroll, Ahead, false>});
    to.push_back({name + ", stream", move<R, W, Unroll, Ahead, true>});
  };
  one.template operator()<0>();
  one.template operator()<2048>();
  one.template operator()<4096>();
}

template <int R, int W>
std::vector<variant> all() {
  std::vector<variant> found;
  add<R, W, 1>(found);
  add<R, W, 4>(found);
  return found;
}

}  // namespace

std::vector<variant> variants(int read, int write) {
  if (read == 8 && write == 1) return all<8, 1>();
  if (read == 4 && write == 1) return all<4, 1>();
  if (read == 2 && write == 1) return all<2, 1>();
  if (read == 1 && write == 8) return all<1, 8>();
  if (read == 1 && write == 4) return all<1, 4>();
  if (read == 1 && write == 2) return all<1, 2>();
  return {};
}

}  // namespace limits
