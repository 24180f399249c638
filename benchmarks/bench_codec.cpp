// Speed of the codecs as a share of what the machine can move. See README.md for how to read the table.
//
//   bench_codec [--rounds 7] [--json FILE] [--only TEXT] [--all-isas]
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <random>

#include "interleaved.hpp"
#include "limits.hpp"
#include "prismaquant/codec/codec.hpp"
#include "prismaquant/formats/format_list.hpp"

using namespace prismaquant;
using interleaved::contender;

namespace {

// Memory that starts on a page; what the kernels read is touched, so that every page exists.
struct buffer {
  explicit buffer(std::size_t size) : bytes(size + 4096) {
    auto const address = reinterpret_cast<std::uintptr_t>(bytes.data());
    data = bytes.data() + (4096 - address % 4096) % 4096;
    std::memset(data, 0x11, size);
  }
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(data);
  }
  std::vector<char> bytes;
  char* data;
};

constexpr std::size_t columns = 4096;
constexpr std::size_t dram_rows = 16384;  // 256 MiB of float32
constexpr std::size_t cached_rows = 16;   // 256 KiB of float32: in the second-level cache with its codes

struct memory {
  buffer floats{dram_rows * columns * 4};
  buffer halves{dram_rows * columns * 2};
  buffer codes{dram_rows * columns};
  buffer scales{dram_rows * columns / 8};
  buffer out{dram_rows * columns * 4};

  memory() {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal(0.0f, 0.02f);
    constexpr std::size_t some = 1 << 20;
    for (std::size_t i = 0; i < some; ++i) {
      floats.as<float>()[i] = normal(generator);
      halves.as<bfloat16>()[i] = bfloat16::round(floats.as<float>()[i]);
    }
    for (std::size_t i = some; i < dram_rows * columns; i += some) {
      std::memcpy(floats.as<float>() + i, floats.data, some * 4);
      std::memcpy(halves.as<float16>() + i, halves.data, some * 2);
    }
  }
};

struct settings {
  int rounds = 7;
  std::string only;
  bool all_isas = false;
};

struct row {
  std::string name, size, isa;
  int threads;
  double elements_per_second, ratio;
  double goal;  // of the ratio; 0: none
  std::string limit;
};

class bench {
 public:
  bench(memory& m, settings s) : m_(m), s_(std::move(s)) {}

  // `work(rows_begin, rows_end)` handles rows of 4096; bytes are moved read : write.
  template <class Work>
  void measure(std::string const& name, int read, int write, bool with_scales, double goal, Work const& work) {
    if (name.find(s_.only) == std::string::npos) return;
    for (bool const dram : {true, false}) {
      for (int const threads : {1, 2}) {
        if (!dram && threads == 2) continue;
        run(name, dram, threads, read, write, with_scales, goal, work);
      }
    }
  }

  std::vector<row> rows;

 private:
  template <class Work>
  void run(std::string const& name, bool dram, int threads, int read, int write, bool with_scales, double goal,
           Work const& work) {
    std::size_t const count = dram ? dram_rows / static_cast<std::size_t>(threads) : cached_rows;
    std::size_t const repeats = dram ? 1 : 256;
    interleaved::group g{name, static_cast<double>(count * columns * repeats) * threads, threads, 0, {}};
    // Bytes per element of the smaller side: a step of the limit kernel moves 64 of them.
    std::size_t const steps = count * columns /
                              (read == 8 || write == 8                    ? 128
                               : with_scales && (read == 4 || write == 4) ? 128
                                                                          : 64);
    for (auto const& v : limits::variants(read, write)) {
      if (!dram && v.name.find("stream") != std::string::npos) continue;
      g.contenders.push_back({v.name, [=, this](int part) {
                                auto const p = static_cast<std::size_t>(part) * steps * 64;
                                auto const r = static_cast<std::size_t>(read), w = static_cast<std::size_t>(write);
                                char const* const from = (read > 1 ? m_.floats : m_.codes).data + p * r;
                                char* const to = (read > 1 ? m_.codes : m_.out).data + p * w;
                                char* const scales = with_scales && read > 1 ? m_.scales.data + p / 8 : nullptr;
                                for (std::size_t k = 0; k < repeats; ++k) v.run(from, to, scales, steps);
                              }});
    }
    g.limits = g.contenders.size();
    auto names = available_isas();
    if (!s_.all_isas && dram) names = {names.back()};
    for (auto const& isa : names) {
      if (isa == "scalar") continue;
      g.contenders.push_back({isa, [=](int part) {
                                use_isa(isa);
                                auto const begin = static_cast<std::size_t>(part) * count;
                                for (std::size_t k = 0; k < repeats; ++k) work(begin, begin + count);
                              }});
    }
    g.run(s_.rounds);
    double const limit = g.limit_seconds();
    for (auto const& c : g.contenders) {
      bool const is_limit = &c < g.contenders.data() + g.limits;
      if (is_limit && c.median() != limit) continue;
      double const speed = g.elements / c.median();
      double const goal_here = is_limit || !dram || threads != 1 ? 0 : goal;
      rows.push_back({name, dram ? "DRAM" : "L2", is_limit ? "limit" : c.name, threads, speed, limit / c.median(),
                      goal_here, is_limit ? c.name : ""});
      auto const& r = rows.back();
      std::printf("%-26s %-5s %d  %-12s %8.2f G/s  %5.2f  %s\n", r.name.c_str(), r.size.c_str(), threads, r.isa.c_str(),
                  speed * 1e-9, r.ratio,
                  is_limit ? c.name.c_str()
                  : goal_here > 0
                      ? ("goal " + std::to_string(goal).substr(0, 4) + (r.ratio >= goal ? "" : "  MISSED")).c_str()
                      : "");
      std::fflush(stdout);
    }
  }

  memory& m_;
  settings s_;
};

template <format F, scale_rule Rule = amax_rule>
auto encoder(memory& m, auto const* weights, float global_scale) {
  return [&m, weights, global_scale](std::size_t begin, std::size_t end) {
    std::size_t const n = end - begin;
    using T = std::remove_const_t<std::remove_pointer_t<decltype(weights)>>;
    auto const s = stored<F>(n, columns);
    quantized_view<F> out{n, columns, {}, {}, global_scale, {}};
    out.codes = {m.codes.as<typename F::layout::word>() + begin * s.code_columns, s.code_rows, s.code_columns,
                 static_cast<std::ptrdiff_t>(s.code_columns), 1};
    if constexpr (has_scales<F>) {
      out.scales = {m.scales.as<typename F::scale::code_type>() + begin * s.scale_columns, s.scale_rows,
                    s.scale_columns, static_cast<std::ptrdiff_t>(s.scale_columns), 1};
    }
    if constexpr (std::same_as<Rule, given_rule>) out.scales(0, 0) = F::scale::from_amax(0.1f, 448.0f, 1.0f);
    encode_into<F, Rule>(matrix_view<T const>{weights + begin * columns, n, columns, columns, 1}, out,
                         serial_executor{});
  };
}

template <format F, class Out>
auto decoder(memory& m, float global_scale) {
  return [&m, global_scale](std::size_t begin, std::size_t end) {
    std::size_t const n = end - begin;
    auto const s = stored<F>(n, columns);
    const_quantized_view<F> q{n, columns, {}, {}, global_scale, {}};
    q.codes = {m.codes.as<typename F::layout::word>() + begin * s.code_columns, s.code_rows, s.code_columns,
               static_cast<std::ptrdiff_t>(s.code_columns), 1};
    q.scales = {m.scales.as<typename F::scale::code_type>() + begin * s.scale_columns, s.scale_rows, s.scale_columns,
                static_cast<std::ptrdiff_t>(s.scale_columns), 1};
    decode<F>(q, matrix_view<Out>{m.out.as<Out>() + begin * columns, n, columns, columns, 1}, serial_executor{});
  };
}

void write_json(std::string const& path, std::vector<row> const& rows) {
  std::ofstream file(path);
  file << "[\n";
  for (std::size_t i = 0; i < rows.size(); ++i) {
    auto const& r = rows[i];
    file << "  {\"kernel\": \"" << r.name << "\", \"size\": \"" << r.size << "\", \"threads\": " << r.threads
         << ", \"isa\": \"" << r.isa << "\", \"elements_per_second\": " << r.elements_per_second
         << ", \"ratio_to_limit\": " << r.ratio << (r.goal > 0 ? ", \"goal\": " + std::to_string(r.goal) : "")
         << ", \"limit_kernel\": \"" << r.limit << "\"}" << (i + 1 < rows.size() ? "," : "") << "\n";
  }
  file << "]\n";
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  std::string json;
  for (int i = 1; i < argc; ++i) {
    std::string const flag = argv[i];
    if (flag == "--all-isas") s.all_isas = true;
    if (i + 1 == argc) break;
    if (flag == "--rounds") s.rounds = std::atoi(argv[++i]);
    if (flag == "--json") json = argv[++i];
    if (flag == "--only") s.only = argv[++i];
  }
  memory m;
  bench b(m, s);
  auto const* const f32 = m.floats.as<float>();
  auto const* const half = m.halves.as<bfloat16>();
  float const g = nvfp4::global_scale(0.1f, 448.0f);
  std::puts("kernel                     size  cores isa           elements   share of limit");
  b.measure("nvfp4 encode f32", 8, 1, true, 0.85, encoder<nvfp4>(m, f32, g));
  b.measure("nvfp4 encode bf16", 4, 1, true, 0.65, encoder<nvfp4>(m, half, g));
  b.measure("mxfp4 encode f32", 8, 1, true, 0, encoder<mxfp4>(m, f32, 1.0f));
  b.measure("fp8 encode f32, scale known", 4, 1, false, 0.85, encoder<fp8_e4m3_tensor, given_rule>(m, f32, 1.0f));
  b.measure("fp8 channel encode f32", 4, 1, false, 0.75, encoder<fp8_e4m3_channel>(m, f32, 1.0f));
  b.measure("mxfp8 encode f32", 4, 1, false, 0.70, encoder<mxfp8_e4m3>(m, f32, 1.0f));
  b.measure("nvfp4 decode f32", 1, 8, false, 0.90, decoder<nvfp4, float>(m, g));
  b.measure("nvfp4 decode bf16", 1, 4, true, 0.70, decoder<nvfp4, bfloat16>(m, g));
  b.measure("mxfp4 decode f32", 1, 8, false, 0.90, decoder<mxfp4, float>(m, 1.0f));
  b.measure("mxfp4 decode bf16", 1, 4, true, 0.70, decoder<mxfp4, bfloat16>(m, 1.0f));
  b.measure("mxfp8 decode f32", 1, 4, false, 0, decoder<mxfp8_e4m3, float>(m, 1.0f));
  if (!json.empty()) write_json(json, b.rows);
}
