/// @file
/// Formats with longer blocks than groups, or without scales, by kernels: runs of a row under one scale.
#pragma once

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "prismaquant/codec/quantized.hpp"
#include "prismaquant/codec/rows.hpp"
#include "prismaquant/core/executor.hpp"
#include "prismaquant/core/fp_environment.hpp"

namespace prismaquant::detail {

/// Largest magnitude of a matrix as bits; at least those of infinity if a weight is not finite.
template <weight_type T, executor Executor>
std::uint32_t largest_bits(matrix_view<T const> weights, Executor&& executor) {
  std::atomic<std::uint32_t> amax{0};
  executor.for_ranges(weights.rows, [&](std::size_t begin, std::size_t end) {
    fp_environment_guard const guard;
    auto* const largest = largest_finder<T>();
    contiguous_rows<T> source(weights);
    std::uint32_t mine = 0;
    for (std::size_t r = begin; r < end; ++r) mine = std::max(mine, largest(source.row(r), weights.columns, 4096));
    for (auto seen = amax.load(); seen < mine && !amax.compare_exchange_weak(seen, mine);) {
    }
  });
  return amax.load();
}

/// Formats whose scale, if any, is one for the whole matrix: their rows are coded one by one.
template <class F>
inline constexpr bool one_scale = !has_scales<F> || (F::block_shape::rows == 0 && F::block_shape::columns == 0);

/// Rows that share scales, and so are handled by one thread.
template <class F>
inline constexpr std::size_t band_rows = one_scale<F> ? 1 : F::block_shape::rows;

template <class F>
std::size_t bands(std::size_t rows) noexcept {
  return (rows + band_rows<F> - 1) / band_rows<F>;
}

/// Encodes runs to the codes of a matrix.
template <format F, weight_type T>
class run_writer {
 public:
  explicit run_writer(matrix_view<typename F::layout::word> codes)
      : codes_(codes), stream_(is_larger_than_caches(codes)) {}

  void code(T const* weights, std::size_t r, std::size_t c, std::size_t count, float amax, float scale,
            std::size_t ahead) {
    encode_(weights, count, amax, scale, &codes_(r, c), stream_, ahead);
  }

 private:
  matrix_view<typename F::layout::word> codes_;
  bool stream_;
  encode_run_kernel* encode_ = run_encoder<F, T>();
};

/// Encodes runs and decodes them to `target`, without storing codes.
template <format F, weight_type T, class Target>
class run_roundtrip {
 public:
  explicit run_roundtrip(Target target) : target_(std::move(target)) {}

  void code(T const* weights, std::size_t r, std::size_t c, std::size_t count, float amax, float scale,
            std::size_t ahead) {
    for (std::size_t k = 0; k < count; k += step) {
      std::size_t const n = std::min(step, count - k);
      encode_(weights + k, n, amax, scale, codes_, false, ahead);
      decode_(codes_, n, scale, target_.place(r, c + k), target_.stream());
      target_.done(r, c + k, n, weights + k);
    }
  }

 private:
  static constexpr std::size_t step = 1024;
  static_assert(step <= Target::most);
  Target target_;
  typename F::layout::word codes_[step];
  encode_run_kernel* encode_ = run_encoder<F, T>();
  decode_run_kernel* decode_ = run_decoder<F, typename Target::value_type>();
};

/// Hands the runs of bands [begin, end) to `coder`, after their scales were chosen by the largest magnitude if
/// `Choose`. `amax` is that of the matrix, where it is known. False if a weight is not finite.
template <format F, bool Choose, weight_type T, class Coder>
bool code_runs(matrix_view<T const> weights, matrix_view<typename F::scale::code_type> scales, float const* amax,
               std::size_t begin, std::size_t end, Coder& coder) {
  fp_environment_guard const guard;
  auto* const largest = largest_finder<T>();
  std::size_t const width = has_scales<F> && F::block_shape::columns != 0 ? F::block_shape::columns : weights.columns;
  contiguous_rows<T> source(weights);
  std::size_t const ahead = source.bytes_to_next_row();
  std::vector<std::uint32_t> largest_of_run(Choose ? scales.columns : 0);
  for (std::size_t band = begin; band < end; ++band) {
    std::size_t const top = band * band_rows<F>, bottom = std::min(top + band_rows<F>, weights.rows);
    std::size_t const i = one_scale<F> ? 0 : band;
    if constexpr (Choose) {
      std::fill(largest_of_run.begin(), largest_of_run.end(), 0u);
      for (std::size_t r = top; r < bottom; ++r) {
        T const* const row = source.row(r);
        for (std::size_t j = 0, c = 0; c < weights.columns; ++j, c += width) {
          auto& found = largest_of_run[j];
          found = std::max(found, largest(row + c, std::min(width, weights.columns - c), ahead));
        }
      }
      for (std::size_t j = 0; j < largest_of_run.size(); ++j) {
        auto const magnitude = std::bit_cast<float>(largest_of_run[j]);
        if (!is_finite(magnitude)) return false;
        scales(i, j) = F::scale::from_amax(magnitude, full_scale<typename F::element>, 1.0f);
      }
    }
    for (std::size_t r = top; r < bottom; ++r) {
      T const* const row = source.row(r);
      for (std::size_t j = 0, c = 0; c < weights.columns; ++j, c += width) {
        std::size_t const count = std::min(width, weights.columns - c);
        float scale = 1.0f;
        if constexpr (has_scales<F>) scale = F::scale::decode(scales(i, j), 1.0f);
        if constexpr (Choose) {
          coder.code(row + c, r, c, count, std::bit_cast<float>(largest_of_run[j]), scale, ahead);
        } else if (amax != nullptr) {
          coder.code(row + c, r, c, count, *amax, scale, 4096);
        } else {  // a few KiB at a time: read once from memory, once more from the first-level cache
          constexpr std::size_t step = 1024;
          for (std::size_t k = 0; k < count; k += step) {
            std::size_t const n = std::min(step, count - k);
            auto const magnitude = std::bit_cast<float>(largest(row + c + k, n, 4096));
            if (!is_finite(magnitude)) return false;
            coder.code(row + c + k, r, c + k, n, magnitude, scale, 4096);
          }
        }
      }
    }
  }
  return true;
}

/// All runs of a matrix: for each range of bands a coder that `make` makes. False if a weight is not finite.
template <format F, bool Choose, weight_type T, executor Executor, class Make>
bool code_all_runs(matrix_view<T const> weights, matrix_view<typename F::scale::code_type> scales, Executor& executor,
                   Make&& make) {
  std::atomic<bool> finite{true};
  auto const code = [&]<bool ChooseHere>(float const* amax) {
    executor.for_ranges(bands<F>(weights.rows), [&](std::size_t begin, std::size_t end) {
      auto coder = make();
      if (!code_runs<F, ChooseHere>(weights, scales, amax, begin, end, coder)) finite = false;
    });
  };
  if constexpr (Choose && one_scale<F>) {
    auto const amax = std::bit_cast<float>(largest_bits(weights, executor));
    if (!is_finite(amax)) return false;
    fp_environment_guard const guard;
    scales(0, 0) = F::scale::from_amax(amax, full_scale<typename F::element>, 1.0f);
    code.template operator()<false>(&amax);
  } else {
    code.template operator()<Choose>(nullptr);
  }
  return finite;
}

/// Decodes rows [begin, end) to `target`, which compares them with `weights` if it compares.
template <format F, class T, class Target>
void decode_run_rows(const_quantized_view<F> const& q, contiguous_rows<T>& weights, std::size_t begin, std::size_t end,
                     Target& target) {
  fp_environment_guard const guard;
  auto* const decode = run_decoder<F, typename Target::value_type>();
  std::size_t const width = has_scales<F> && F::block_shape::columns != 0 ? F::block_shape::columns : q.columns;
  for (std::size_t r = begin; r < end; ++r) {
    T const* const row = weights.row(r);
    std::size_t const i = one_scale<F> ? 0 : r / band_rows<F>;
    for (std::size_t j = 0, left = 0; left < q.columns; ++j, left += width) {
      std::size_t const right = std::min(left + width, q.columns);
      float scale = 1.0f;
      if constexpr (has_scales<F>) scale = F::scale::decode(q.scales(i, j), q.global_scale);
      for (std::size_t c = left; c < right; c += Target::most) {
        std::size_t const count = std::min(Target::most, right - c);
        decode(&q.codes(r, c), count, scale, target.place(r, c), target.stream());
        target.done(r, c, count, row != nullptr ? row + c : nullptr);
      }
    }
  }
}

}  // namespace prismaquant::detail
