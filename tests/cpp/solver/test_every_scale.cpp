// NVFP4 sweeps, by every instruction set, against trying all 126 positive E4M3 scales: written out here once more, so
// that a mistake in the window, in the rounding or in the order of the codes would have to be made twice.
//
// PRISMAQUANT_TEST_BLOCKS: blocks without importance (10^7 by default); a tenth as many with importance.
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "kernels/parity.hpp"
#include "support/random_bits.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

constexpr std::size_t rows = 512, blocks_per_row = 128, columns = 16 * blocks_per_row, blocks = rows * blocks_per_row;
thread_executor const threads(2);

std::size_t blocks_to_draw() {
  char const* const text = std::getenv("PRISMAQUANT_TEST_BLOCKS");
  return text != nullptr ? static_cast<std::size_t>(std::strtoull(text, nullptr, 10)) : 10'000'000;
}

// The magnitude nearest to q of 0, 0.5, 1, 1.5, 2, 3, 4, 6, ties to the even code.
float nearest_e2m1(float q) {
  auto const step = [](float size, bool taken) { return taken ? size : 0.0f; };
  return step(0.5f, q > 0.25f) + step(0.5f, q >= 0.75f) + step(0.5f, q > 1.25f) + step(0.5f, q >= 1.75f) +
         step(1.0f, q > 2.5f) + step(1.0f, q >= 3.5f) + step(2.0f, q > 5.0f);
}

// The E4M3 scales, from their definition, over the global scale.
std::array<float, 127> scales_under(float global_scale) {
  std::array<float, 127> scales{};
  for (int code = 1; code <= 126; ++code) {
    double const mantissa = code % 8 + (code >= 8 ? 8 : 0);
    scales[static_cast<std::size_t>(code)] =
        static_cast<float>(std::ldexp(mantissa, std::max(code / 8, 1) - 10)) / global_scale;
  }
  return scales;
}

// The first of all codes with the least sum of importance * (w - w')^2. A code is given up when a part of the sum,
// in the order of the elements or that of the largest one, is more than the least.
unsigned best_code(float const* w, float const* importance, std::array<float, 127> const& scales, unsigned guess) {
  double least = std::numeric_limits<double>::infinity();
  unsigned best = 0;
  auto const part_of_sum = [&](int i, float scale) {
    float const size = magnitude(w[i]);
    double const difference = double{size} - double{nearest_e2m1(size / scale)} * double{scale};
    return (importance != nullptr ? double{importance[i]} : 1.0) * (difference * difference);
  };
  auto const largest =
      static_cast<int>(std::max_element(w, w + 16, [](float a, float b) { return magnitude(a) < magnitude(b); }) - w);
  auto const attempt = [&](unsigned code) {
    float const scale = scales[code];
    if (part_of_sum(largest, scale) > least) return;
    double sum = 0.0;
    for (int first = 0; first < 16 && !(sum > least); first += 4) {
      std::array<double, 4> parts;  // the compiler's vectors
      for (int i = 0; i < 4; ++i) parts[static_cast<std::size_t>(i)] = part_of_sum(first + i, scale);
      for (double const part : parts) sum += part;
    }
    if (sum < least || (sum == least && code < best)) {
      least = sum;
      best = code;
    }
  };
  if (guess >= 1 && guess <= 126) attempt(guess);  // a small sum early; every code is tried all the same
  for (unsigned code = 1; code <= 126; ++code) attempt(code);
  return best;
}

// Sixteen weights of a kind that `random` chooses: ordinary ones, and what a sweep could get wrong.
void make_block(float* w, std::uint64_t random) {
  auto const word = [&](int i) { return random_bits(random + static_cast<std::uint64_t>(i) * 0x100000001u); };
  auto const sign = [&](int i) { return word(i) % 2 == 0 ? 1.0f : -1.0f; };
  int const kind = static_cast<int>(random % 12);
  float const size = std::ldexp(1.0f + unit(word(16)), static_cast<int>(word(17) % 8) - 4);
  constexpr std::array edges{0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  for (int i = 0; i < 16; ++i) {
    float const uniform = 2.0f * unit(word(i)) - 1.0f;
    float const normal = (unit(word(i + 20)) + unit(word(i + 40)) + unit(word(i + 60)) - 1.5f) * 2.0f;
    float const tie = edges[word(i) % edges.size()] * sign(i + 20);
    switch (kind) {
      case 0:
      case 1:
        w[i] = normal * size;
        break;
      case 2:
        w[i] = normal * normal * normal * size;
        break;
      case 3:
        w[i] = uniform * size;
        break;
      case 4:
        w[i] = float(bfloat16::round(normal * size));
        break;
      case 5:
        w[i] = tie * std::ldexp(1.0f + static_cast<float>(word(18) % 8) / 8.0f, static_cast<int>(word(19) % 9) - 6);
        break;
      case 6:
        w[i] = i == static_cast<int>(word(18) % 16) ? 6.0f * size : tie * size / 64.0f;
        break;  // a spike
      case 7:
        w[i] = word(18) % 8 == 0 ? 0.0f : word(18) % 3 == 0 ? size : size * sign(i + 20);
        break;  // constant
      case 8:
        w[i] = std::nextafter(std::ldexp(1.0f, -static_cast<int>(word(i) % 4)), i % 2 == 0 ? 0.0f : 2.0f);
        break;
      case 9:
        w[i] = uniform * std::ldexp(6.0f, -11 + static_cast<int>(word(18) % 6));
        break;  // subnormal scales
      case 10:
        w[i] = uniform * std::ldexp(1.0f, static_cast<int>(word(18) % 200) - 140);
        break;  // any size at all
      default:
        w[i] = word(i) % 3 == 0 ? tie * size : 0.0f;
        break;  // sparse
    }
  }
}

// From nothing to a million times more than the others, many of them zero, or all but one.
float make_importance(std::uint64_t random, std::size_t i) {
  auto const word = random_bits(random + 977 * (i % 16));
  switch (random_bits(random) % 4) {
    case 0:
      return unit(word);
    case 1:
      return std::ldexp(1.0f + unit(word), static_cast<int>(word % 41) - 20);
    case 2:
      return word % 4 == 0 ? unit(word) : 0.0f;
    default:
      return i % 16 == word % 16 || word % 9 == 0 ? 1e12f * unit(word) : 1e-12f;
  }
}

// Scales of equal error are equally right where one of them is outside of the window; the public error decides.
bool equally_good(float const* w, float const* importance, unsigned found, unsigned best, float global_scale) {
  matrix_view<float const> const block{w, 1, 16, 16, 1}, h{importance, 1, 16, 16, 1};
  auto const error = [&](unsigned code) {
    float const scale = e4m3_scale::decode(static_cast<std::uint8_t>(code), global_scale);
    return importance != nullptr ? rounding_error<nvfp4>(block, h, scale).total : rounding_error<nvfp4>(block, scale);
  };
  if (found == 0 || found > 126) return false;
  double const mine = error(found);
  if (best != 0 && error(best) < mine) return false;
  for (unsigned code = 1; code <= 126; ++code) {
    if (error(code) < mine) return false;
  }
  return true;
}

void require_best(std::vector<float> const& weights, std::vector<float> const* importance, float global_scale) {
  matrix_view<float const> const matrix{weights.data(), rows, columns, columns, 1};
  encode_options options;
  if (importance != nullptr) options.importance = {importance->data(), rows, columns, columns, 1};
  auto const run = [&] { return encode<nvfp4, sweep_rule>(matrix, global_scale, threads, options).scales(); };
  auto const scalar = on_scalar(run);
  auto const scales = scales_under(global_scale);
  std::atomic<std::size_t> wrong{blocks};
  threads.for_ranges(blocks, [&](std::size_t begin, std::size_t end) {
    for (std::size_t b = begin; b < end; ++b) {
      float const* const w = &weights[16 * b];
      float const* h = importance != nullptr ? &(*importance)[16 * b] : nullptr;
      if (h != nullptr && std::all_of(h, h + 16, [](float x) { return x == 0.0f; })) h = nullptr;  // as documented
      unsigned const best = best_code(w, h, scales, scalar[b]);
      if (scalar[b] != best && !equally_good(w, h, scalar[b], best, global_scale)) wrong = b;
    }
  });
  if (std::size_t const b = wrong; b != blocks) {
    CAPTURE(b, global_scale, static_cast<unsigned>(scalar[b]));
    for (std::size_t i = 0; i < 16; ++i) UNSCOPED_INFO(weights[16 * b + i]);
    FAIL("another scale has a smaller error");
  }
  on_every_isa([&] {
    bool const same = run() == scalar;
    CAPTURE(global_scale);
    REQUIRE(same);
  });
}

// Mostly powers of two and ordinary numbers, now and then the ends of the range.
float global_scale_of(std::size_t round) {
  constexpr std::array extreme{0x1p-149f, 0x1p-126f, 1e-30f, 1e-10f, 1e10f, 1e30f, 0x1p127f};
  if (round % 8 == 7) return extreme[round / 8 % extreme.size()];
  float const power = std::ldexp(1.0f, static_cast<int>(round % 12) - 2);
  return round % 3 == 0 ? power : power * (1.0f + unit(random_bits(round)));
}

}  // namespace

TEST_CASE("the NVFP4 sweep equals trying all 126 scales, on millions of blocks, under every instruction set") {
  std::vector<float> weights(rows * columns);
  for (std::size_t done = 0; done < blocks_to_draw(); done += blocks) {
    threads.for_ranges(blocks, [&](std::size_t begin, std::size_t end) {
      for (std::size_t b = begin; b < end; ++b) make_block(&weights[16 * b], random_bits(done + b) >> 1);
    });
    require_best(weights, nullptr, global_scale_of(done / blocks));
  }
}

TEST_CASE("the weighted NVFP4 sweep equals trying all 126 scales, under every instruction set") {
  std::vector<float> weights(rows * columns), importance(rows * columns);
  for (std::size_t done = 0; done < blocks_to_draw() / 10; done += blocks) {
    threads.for_ranges(blocks, [&](std::size_t begin, std::size_t end) {
      for (std::size_t b = begin; b < end; ++b) {
        auto const random = random_bits(~(done + b)) >> 1;
        make_block(&weights[16 * b], random);
        for (std::size_t i = 0; i < 16; ++i) importance[16 * b + i] = make_importance(random, i);
      }
    });
    require_best(weights, &importance, global_scale_of(done / blocks));
  }
}
