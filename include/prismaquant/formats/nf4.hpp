/// @file
/// NF4: the 16 quantiles of a normal distribution, in blocks of 64 along a row, with the block's largest magnitude as
/// the scale; plain, and with the scales quantized once more. Source: bitsandbytes (`nf4`, blocksize 64, nested
/// blocksize 256).
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

#include "prismaquant/formats/format.hpp"

namespace prismaquant {

/// A table of values in rising order, the code being the index.
template <class Table>
struct codebook {
  using code_type = std::uint8_t;
  static constexpr int bits = Table::bits;
  static constexpr float max_value = Table::values.back();
  static_assert(std::size(Table::values) == std::size_t{1} << bits);

  static constexpr float decode(code_type code) noexcept { return Table::values[code & (Table::values.size() - 1)]; }

  /// Code of the nearest value, the lower one on ties (bitsandbytes); beyond the ends saturating. NaN gives code 0.
  static constexpr code_type encode(float value) noexcept {
    std::size_t low = 0;
    for (std::size_t step = Table::values.size() / 2; step != 0; step /= 2) {
      if (above_midpoint(value, low + step - 1)) low += step;
    }
    return static_cast<code_type>(low);
  }

 private:
  /// Whether `value` is nearer to entry `i` + 1 than to entry `i`; exact in float64.
  static constexpr bool above_midpoint(float value, std::size_t i) noexcept {
    return 2.0 * double{value} > double{Table::values[i]} + double{Table::values[i + 1]};
  }
};

/// bitsandbytes `get_4bit_type("nf4")`.
struct nf4_table {
  static constexpr int bits = 4;
  static constexpr std::array<float, 16> values{
      -1.0f,
      -0.6961928009986877f,
      -0.5250730514526367f,
      -0.39491748809814453f,
      -0.28444138169288635f,
      -0.18477343022823334f,
      -0.09105003625154495f,
      0.0f,
      0.07958029955625534f,
      0.16093020141124725f,
      0.24611230194568634f,
      0.33791524171829224f,
      0.44070982933044434f,
      0.5626170039176941f,
      0.7229568362236023f,
      1.0f,
  };
};

/// bitsandbytes `create_dynamic_map()`: zero, one, and for each of seven decades the middles of 1, 2, 4 ... 64 equal
/// parts of a tenth to one, with both signs.
struct dynamic_table {
  static constexpr int bits = 8;
  static constexpr std::array<float, 256> values = [] {
    std::array<float, 256> table{};
    std::size_t filled = 1;
    table[filled++] = 1.0f;
    constexpr std::array<double, 7> decades{1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0};
    for (std::size_t decade = 0; decade < decades.size(); ++decade) {
      int const parts = 1 << decade;
      // torch.linspace(0.1, 1) in float32: from the nearer end, step and sum rounded once.
      auto const boundary = [parts](int k) {
        double const step = double{(1.0f - 0.1f) / static_cast<float>(parts)};
        return static_cast<float>(2 * k < parts ? double{0.1f} + step * k : 1.0 - step * (parts - k));
      };
      for (int k = 0; k < parts; ++k) {
        float const middle = (boundary(k) + boundary(k + 1)) / 2.0f;
        float const value = static_cast<float>(decades[decade]) * middle;
        table[filled++] = value;
        table[filled++] = -value;
      }
    }
    std::sort(table.begin(), table.end());
    return table;
  }();
};

using nf4_element = codebook<nf4_table>;
using dynamic_element = codebook<dynamic_table>;

/// value = NF4(code) * scale. With a row length that is a multiple of 64 the blocks and bytes are those of the
/// flattened matrix, which is how bitsandbytes sees it; other row lengths are refused.
struct nf4 {
  static constexpr std::string_view name = "nf4";
  using element = nf4_element;
  using scale = float32_scale;
  using block_shape = block<1, 64>;
  using layout = packed_nibbles_high_first;
  using extra = no_extra;
  static constexpr bool has_global_scale = false;
  static constexpr bool ragged_blocks = false;
};

/// A block scale that is itself quantized: dynamic(code) * scale of the run of 256 blocks + offset.
struct nested_scale {
  using code_type = std::uint8_t;
  static constexpr int bits = 8;
};

/// NF4 whose block scales are quantized in runs of 256 in row-major order, after their mean was subtracted. Elements
/// are rounded under the scales before that, as in bitsandbytes.
struct nf4_double : nf4 {
  static constexpr std::string_view name = "nf4_double";
  using base = nf4;
  using scale = nested_scale;
  using extra = nested_scales;

  /// Quantizes `count` scales into `codes` and `extra` (1 + ceil(count / 256) words).
  static constexpr void nest(float const* scales, std::size_t count, std::uint8_t* codes, float* extra) noexcept {
    double sum = 0.0;
    for (std::size_t i = 0; i < count; ++i) sum += double{scales[i]};
    float const offset = count != 0 ? static_cast<float>(sum / static_cast<double>(count)) : 0.0f;
    extra[0] = offset;
    for (std::size_t begin = 0; begin < count; begin += nested_scales::run) {
      std::size_t const end = std::min(begin + nested_scales::run, count);
      float largest = 0.0f;
      for (std::size_t i = begin; i < end; ++i) largest = std::max(largest, magnitude(scales[i] - offset));
      extra[1 + begin / nested_scales::run] = largest;
      for (std::size_t i = begin; i < end; ++i) {
        codes[i] = dynamic_element::encode(largest != 0.0f ? (scales[i] - offset) / largest : 0.0f);
      }
    }
  }

  /// Scale `i` of those that `nest` was given.
  static constexpr float unnest(std::size_t i, std::uint8_t code, float const* extra) noexcept {
    return dynamic_element::decode(code) * extra[1 + i / nested_scales::run] + extra[0];
  }
};

static_assert(format<nf4> && stored_bytes<nf4>(2, 64) == 64 + 8);
static_assert(nested_format<nf4_double> && stored_bytes<nf4_double>(2, 64 * 256) == 2 * (64 * 128 + 256) + 4 + 8);
static_assert(nf4_element::encode(0.0f) == 7 && nf4_element::encode(2.0f) == 15);

}  // namespace prismaquant
