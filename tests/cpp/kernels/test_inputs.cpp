// Every 16-bit input, and float32 inputs from every binade with their ties, through every format and instruction set.
//
// PRISMAQUANT_TEST_FLOATS: how many float32 every format encodes (10^8 by default); "all": every one of the 2^32, four
// times.
#include <cmath>
#include <cstdlib>

#include "kernels/everywhere.hpp"
#include "support/random_bits.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

constexpr std::size_t columns = 4096;
thread_executor const threads(2);

std::uint64_t floats_to_draw() {
  char const* const text = std::getenv("PRISMAQUANT_TEST_FLOATS");
  if (text == nullptr) return 100'000'000;
  return std::string(text) == "all" ? std::uint64_t{1} << 32 : std::strtoull(text, nullptr, 10);
}

template <weight_type T>
T finite(T value) {
  return is_finite(float(value)) ? value : T{};
}

template <weight_type T>
matrix_view<T const> matrix(std::vector<T> const& values) {
  return {values.data(), values.size() / columns, columns, columns, 1};
}

template <format F, scale_rule Rule, weight_type T>
void require_parity(std::vector<T> const& values, float global_scale) {
  require_same_everywhere(F::name, [&] { return bytes_of(encode<F, Rule>(matrix(values), global_scale, threads)); });
}

// Element 0 of every group of 16 becomes `leader`, so that small values are seen under the scale of a larger one.
template <weight_type T>
std::vector<T> led_by(T leader, std::vector<T> values) {
  for (std::size_t i = 0; i < values.size(); i += 16) values[i] = leader;
  return values;
}

// All finite values of a 16-bit type.
template <weight_type T>
std::vector<T> every_value() {
  std::vector<T> values(65536);
  for (unsigned i = 0; i < 65536; ++i) values[i] = finite(T{static_cast<std::uint16_t>(i)});
  return values;
}

template <format F, weight_type T>
void require_parity_of_every_value(std::initializer_list<float> leaders) {
  auto const values = every_value<T>();
  for_each_choosing_rule<F>([&]<scale_rule Rule>(Rule) {
    for (float const g : {1.0f, 3.0f, 1e-20f, 1e20f}) {
      if (g == 1.0f || F::has_global_scale) require_parity<F, Rule>(values, g);
    }
    for (float const leader : leaders) require_parity<F, Rule>(led_by(T::round(leader), values), 1.0f);
  });
}

// Any bits at all, or a tie of a short significand, or a last place beside one.
float any_float(std::uint64_t random) {
  auto u = static_cast<std::uint32_t>(random);
  if ((random >> 32) % 2 != 0) {
    std::uint32_t const tie = 1u << (12 + (random >> 40) % 10);  // below 1 to 10 bits of the significand
    u = ((u & ~(2 * tie - 1)) | tie) + static_cast<std::uint32_t>((random >> 48) % 3) - 1u;
  }
  return finite(std::bit_cast<float>(u));
}

// The significand of `value` within twelve binades of one: what codes other than the extremes are made of.
float near_one(float value, std::uint64_t random) {
  auto const u = std::bit_cast<std::uint32_t>(value);
  auto const exponent = 127u - static_cast<std::uint32_t>(random >> 52) % 12u;
  return std::bit_cast<float>((u & 0x807fffffu) | exponent << 23);
}

// All floats in an order in which 2^pass binades alternate. A random significand leads every group of 16, at a place
// of its own in each pass, in the highest of these binades or up to two above.
float in_order(std::uint32_t i, unsigned pass) {
  auto const float_at = [&](std::uint32_t k) {
    std::uint32_t const binade = k & ((1u << pass) - 1), rest = k >> pass;
    return static_cast<std::uint32_t>((rest & 0x7fffffu) | binade << 23 | std::uint64_t{rest >> 23} << (23 + pass));
  };
  if (i % 16 != 5 * pass) return finite(std::bit_cast<float>(float_at(i)));
  auto const random = random_bits(i / 16);
  auto const top = float_at(i | ((1u << pass) - 1)) & 0xff800000u;
  auto const leader = std::bit_cast<float>(top | static_cast<std::uint32_t>(random & 0x7fffffu));
  return finite(std::ldexp(leader, static_cast<int>(random >> 60) % 3));
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("all 65536 bfloat16 inputs, under their own scales and under those of a leader", "",
                        format_list) {
  require_parity_of_every_value<TestType, bfloat16>({6.0f, 448.0f, 0.01f, 1e30f});
}

TEMPLATE_LIST_TEST_CASE("all 65536 float16 inputs, under their own scales and under those of a leader", "",
                        format_list) {
  require_parity_of_every_value<TestType, float16>({6.0f, 448.0f, 65504.0f, 0x1p-15f});
}

TEST_CASE("float32 inputs: all binades, ties and their neighbours, subnormals") {
  std::uint64_t const count = std::min(floats_to_draw(), std::uint64_t{1} << 31);
  std::size_t const batch = std::size_t{1} << 20;
  std::vector<float> any(batch), near(batch);
  for (std::uint64_t done = 0; done < count; done += 2 * batch) {
    fill(any, [&](std::size_t i) { return any_float(random_bits(done + i)); });
    fill(near, [&](std::size_t i) { return near_one(any[i], random_bits(done + batch + i)); });
    bool const every_rule = done % (32 * batch) == 0;
    for_each_format([&]<format F>(F) {
      for_each_choosing_rule<F>([&]<scale_rule Rule>(Rule) {
        if (!every_rule && !std::same_as<Rule, amax_rule>) return;
        require_parity<F, Rule>(any, 1.0f);
        require_parity<F, Rule>(near, 448.0f);
      });
    });
  }
}

TEMPLATE_LIST_TEST_CASE("all 2^32 float32 inputs, if asked for", "", format_list) {
  if (floats_to_draw() < std::uint64_t{1} << 32) return;
  std::size_t const batch = std::size_t{1} << 22;
  std::vector<float> values(batch);
  for (unsigned pass = 0; pass < 4; ++pass) {
    for (std::uint64_t done = 0; done < std::uint64_t{1} << 32; done += batch) {
      fill(values, [&](std::size_t i) { return in_order(static_cast<std::uint32_t>(done + i), pass); });
      require_parity<TestType, amax_rule>(values, 1.0f);
    }
  }
}

TEMPLATE_LIST_TEST_CASE("ties under the scale that the block really gets", "", format_list) {
  using word = typename TestType::element::code_type;
  constexpr unsigned mask = (1u << TestType::element::bits) - 1;
  std::vector<float> values(64 * columns);
  for (unsigned seed = 0; seed < 4; ++seed) {
    // Every 16th column holds the largest magnitudes of its row, with both signs in every group of 32, and stays.
    auto const leader = [&](std::size_t i) {
      float const size = 1.0f + unit(random_bits(i / columns + 1000u * seed));
      return i / 16 % 2 == 0 ? size : -size;
    };
    fill(values, [&](std::size_t i) {
      return i % 16 == 0 ? leader(i) : leader(i) * (2.0f * unit(random_bits(i + (std::uint64_t{seed} << 32))) - 1.0f);
    });
    float const g = seed % 2 == 0 ? 64.0f : 99.0f;
    std::vector<float> low(values.size()), high(values.size());
    on_scalar([&] {
      auto q = encode<TestType>(matrix(values), g, threads);
      auto const out = [](std::vector<float>& to) { return view(std::span<float>(to), to.size() / columns, columns); };
      decode<TestType>(std::as_const(q).view(), out(low), threads);
      for (std::size_t r = 0; r < q.rows(); ++r) {
        for (std::size_t c = 0; c < columns; ++c) {  // the next code: most often the next value
          auto const code = static_cast<word>(TestType::layout::get(q.view().codes, r, c));
          TestType::layout::put(q.view().codes, r, c, static_cast<word>((code + 1) & mask));
        }
      }
      decode<TestType>(std::as_const(q).view(), out(high), threads);
      return 0;
    });
    auto ties = values;
    fill(ties, [&](std::size_t i) {
      float const middle = low[i] / 2 + high[i] / 2;
      if (i % 16 == 0 || !(std::fabs(middle) <= std::fabs(leader(i)))) return values[i];
      int const side = static_cast<int>(random_bits(i) % 3);
      return side == 0 ? middle : std::nextafter(middle, side == 1 ? HUGE_VALF : -HUGE_VALF);
    });
    for_each_choosing_rule<TestType>([&]<scale_rule Rule>(Rule) { require_parity<TestType, Rule>(ties, g); });
  }
}

TEMPLATE_LIST_TEST_CASE("every code under every scale decodes alike", "", format_list) {
  using word = typename TestType::layout::word;
  using scale = typename TestType::scale::code_type;
  constexpr bool scales_are_floats = std::same_as<scale, float>;
  quantized_matrix<TestType> q(256, columns, 3.0f);
  auto const v = q.view();
  for (std::size_t r = 0; r < v.codes.rows; ++r) {
    for (std::size_t c = 0; c < v.codes.columns; ++c) {
      auto const i = r * v.codes.columns + c;
      v.codes(r, c) = static_cast<word>(sizeof(word) < 4 ? i : random_bits(i));
    }
  }
  for (std::size_t r = 0; r < v.scales.rows; ++r) {
    for (std::size_t c = 0; c < v.scales.columns; ++c) {
      if constexpr (scales_are_floats) {
        v.scales(r, c) = std::ldexp(1.0f + unit(random_bits(r)), static_cast<int>(r) - 149);
      } else {
        // Codes of negative numbers and NaN are never written; where both factors are NaN, either may be the result.
        auto const code = static_cast<scale>(sizeof(scale) == 1 ? r : 0x3000u + r * 37u);
        v.scales(r, c) = std::same_as<typename TestType::scale, e4m3_scale> && (code & 0x7f) == 0x7f ? scale{1} : code;
      }
    }
  }
  for (std::size_t r = 0; r < v.extra.rows; ++r) {
    for (std::size_t c = 0; c < v.extra.columns; ++c) {
      using extra = typename TestType::extra::word;
      auto const random = random_bits(r * v.extra.columns + c);
      v.extra(r, c) = std::same_as<extra, float> ? static_cast<extra>(unit(random)) : static_cast<extra>(random);
    }
  }
  require_decode_parity<TestType, float>(q.view());
  require_decode_parity<TestType, bfloat16>(q.view());
  require_decode_parity<TestType, float16>(q.view());
}
