// A neighbour library that flushes subnormals or rounds in another direction changes nothing, in the calling thread or
// in the threads of an executor, and finds its own settings as it left them.
#include "kernels/everywhere.hpp"
#include "support/neighbour.hpp"
#include "support/random_matrix.hpp"

#if defined(PRISMAQUANT_TEST_FP_CONTROL)

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

constexpr std::size_t rows = 9, columns = 256;

// Everything that the codec gives for these weights.
template <format F, scale_rule Rule, class Executor>
bytes everything(matrix_view<float const> weights, float global_scale, Executor& executor) {
  auto const q = encode<F, Rule>(weights, global_scale, executor);
  bytes all = bytes_of(q);
  std::vector<float> out(rows * columns);
  auto const target = view(std::span<float>(out), rows, columns);
  auto const add = [&](auto const& part) {
    auto const more = bytes_of(part);
    all.insert(all.end(), more.begin(), more.end());
  };
  decode<F>(q.view(), target, executor);
  add(out);
  roundtrip<F, Rule>(weights, target, global_scale, executor);
  add(out);
  add(error_of<F>(weights, q.view(), executor));
  add(encoding_error<F, Rule>(weights, global_scale, executor));
  add(std::vector<double>{squared_error<F>(weights, q.view(), executor)});
  return all;
}

template <format F, scale_rule Rule>
void require_undisturbed(random_matrix const& m, float global_scale) {
  thread_executor const alone(1);
  auto const expected = on_scalar([&] { return everything<F, Rule>(m.view(), global_scale, alone); });
  for (auto const& isa : available_isas()) {
    for (auto const how : {disturbance::flush_subnormals, disturbance::round_upwards}) {
      CAPTURE(F::name, Rule::name, isa, static_cast<int>(how), global_scale);
      std::string const used = active_kernels().isa;
      use_isa(isa);
      auto const before = fp_control();
      set_fp_control(disturbed(before, how));
      auto const found = everything<F, Rule>(m.view(), global_scale, alone);
      auto const after = fp_control();
      set_fp_control(before);
      REQUIRE(after == disturbed(before, how));
      require_equal(found, expected, "in the calling thread");
      disturbed_pool const pool{how};
      require_equal(everything<F, Rule>(m.view(), global_scale, pool), expected, "in the threads of a pool");
      use_isa(used);
    }
  }
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("a neighbour that flushes subnormals or rounds upwards changes nothing", "", format_list) {
  random_matrix const tiny(rows, columns, 11, 0x1p-130f), small(rows, columns, 12, 0x1p-120f), usual(rows, columns, 13);
  for_each_choosing_rule<TestType>([&]<scale_rule Rule>(Rule) {
    require_undisturbed<TestType, Rule>(tiny, 1.0f);
    require_undisturbed<TestType, Rule>(small, 1e30f);
    require_undisturbed<TestType, Rule>(usual, 1e38f);  // NVFP4: effective scales are subnormal
    require_undisturbed<TestType, Rule>(usual, 5.0f);
  });
}

TEST_CASE("the disturbances of this test do disturb") {
  float volatile one = 1.0f, tiny = 0x1p-130f, half = 0.5f;
  auto const before = fp_control();
  set_fp_control(disturbed(before, disturbance::flush_subnormals));
  float const volatile flushed = tiny * half;
  set_fp_control(disturbed(before, disturbance::round_upwards));
  float const volatile upwards = one + tiny;
  set_fp_control(before);
  REQUIRE(flushed == 0.0f);
  REQUIRE(upwards > 1.0f);
}

#endif
