/// @file
/// Chains of solvers: `solve` with a list of stages or the name of a preset.
#pragma once

#include <chrono>
#include <span>

#include "prismaquant/solver/codes.hpp"
#include "prismaquant/solver/keep_better.hpp"
#include "prismaquant/solver/memory.hpp"
#include "prismaquant/solver/scalar_kernels.hpp"
#include "prismaquant/solver/statistics.hpp"

namespace prismaquant {

/// The divisor for matrices that an engine fuses, from their common largest magnitude, for a chain: one that does more
/// than `rtn` needs room for upward moves of block scales.
template <format F>
float shared_global_scale(std::span<stage const> stages, float amax) {
  bool const nearest = std::all_of(stages.begin(), stages.end(), [](auto const& s) { return s.index() == 0; });
  static_assert(std::same_as<std::variant_alternative_t<0, stage>, rtn>);
  return nearest ? shared_global_scale<rtn, F>(amax) : shared_global_scale<scale_sweep, F>(amax);
}

namespace detail {

/// Runs bodies under the floating-point environment that kernels expect.
template <executor Executor>
struct guarded_executor {
  Executor& inner;
  template <class Body>
  void for_ranges(std::size_t count, Body&& body) const {
    inner.for_ranges(count, [&](std::size_t begin, std::size_t end) {
      fp_environment_guard const guard;
      body(begin, end);
    });
  }
};

/// Everything that a stage works with, apart from its own options.
template <class Linalg, class Executor>
struct chain_run {
  statistics& known;
  format_solver_kernels kernels;
  std::string_view format_name;
  working_state& state;
  Linalg const& linalg;
  Executor& executor;

  void operator()(shift const& s, stage_report& report) {
    run_shift(s, known.context, state, report, linalg, executor);
  }
  void operator()(gptq const& s, stage_report& report) {
    bool const in_loop = chooses_in_loop(s, kernels, format_name);
    run_gptq(s, in_loop, known.h, state, kernels, report, linalg, executor);
  }
  void operator()(coordinate_descent const& s, stage_report& report) {
    run_coordinate_descent(s, known.h, state, kernels, report, linalg, executor);
  }
  void operator()(two_sided const& s, stage_report& report) {
    if (known.g.count() != 0 && known.g.block() == known.block_of(s)) {
      run_two_sided(s, known.h, known.g, state, kernels, report, linalg, executor);
    } else {
      run_two_sided(s, known.h, known.blocks_of(s), state, kernels, report, linalg, executor);
    }
  }
};

inline double sum_of(std::vector<double> const& numbers) {
  double sum = 0.0;
  for (double x : numbers) sum += x;
  return sum;
}

/// Runs `body(report)`, which makes new values, and keeps the better rows of old and new.
template <linalg_backend Linalg, executor Executor, class Body>
void run_measured(statistics& known, working_state& state, incoming& old, stage_report& report, Linalg const& linalg,
                  Executor& executor, Body&& body) {
  objective const measure(known.h, known.g, known.weights);
  bool const first = !state.has_values;
  if (!first) {
    old.values = state.values;
    old.scales = state.scales;
    old.zeros = state.zeros;
  }
  double const damping = known.h.damping();
  body(report);
  state.has_values = true;
  report.damping = known.h.damping();
  auto after = measure.measure(state, linalg, executor);
  if (!first) {
    if (known.h.damping() != damping) {  // another yardstick
      old.swap(state);
      state.forget_slopes();
      old.objectives = measure.measure(state, linalg, executor);
      old.swap(state);
      state.forget_slopes();
    }
    report.before = sum_of(old.objectives);
    report.rows_kept = keep_better(old, measure, state, after, executor);
  }
  report.after = sum_of(after);
  old.objectives = std::move(after);
}

/// Rounds the target by the rule of a data-free stage.
template <format F, executor Executor>
void round_by(scale_sweep const& s, statistics const& known, working_state& state, Executor& executor) {
  auto const importance = known.sweep_weights(s.use_gram_diagonal);
  if (s.four_over_six) {
    if constexpr (four_over_six_rule::applies<F>) {
      return round_target<F, four_over_six_rule>(state, importance, executor);
    } else {
      throw format_error("scale_sweep: four_over_six is not for " + std::string(F::name));
    }
  }
  round_target<F, sweep_rule>(state, importance, executor);
}
template <format F, executor Executor>
void round_by(rtn const&, statistics const& known, working_state& state, Executor& executor) {
  round_target<F, amax_rule>(state, known.context.importance, executor);
}

/// Whether a stage improves values that must be there already, by itself or because it takes given scales.
inline bool needs_values(stage const& s, format_solver_kernels const& kernels, std::string_view format_name) {
  if (auto const* g = std::get_if<gptq>(&s)) return !chooses_in_loop(*g, kernels, format_name);
  return std::holds_alternative<coordinate_descent>(s) || std::holds_alternative<two_sided>(s);
}

template <format F, linalg_backend Linalg, executor Executor>
std::vector<stage_report> run_chain(std::span<stage const> stages, statistics& known, working_state& state,
                                    Linalg const& linalg, Executor& executor) {
  std::vector<stage_report> reports;
  incoming old;
  chain_run<Linalg, Executor> run{known, solver_kernels_or_scalar<F>(), F::name, state, linalg, executor};
  for (auto const& s : stages) {
    auto const start = std::chrono::steady_clock::now();
    stage_report& report = reports.emplace_back();
    report.name = name_of(s);
    std::visit(
        [&]<solver S>(S const& options) {
          if constexpr (std::same_as<S, shift>) {
            run(options, report);
          } else if constexpr (data_free_solver<S>) {
            run_measured(known, state, old, report, linalg, executor,
                         [&](stage_report&) { round_by<F>(options, known, state, executor); });
          } else {
            if (!state.has_values && needs_values(s, run.kernels, F::name)) {
              round_by<F>(scale_sweep{}, known, state, executor);
              old.objectives = objective(known.h, known.g, known.weights).measure(state, linalg, executor);
            }
            run_measured(known, state, old, report, linalg, executor, [&](stage_report& r) { run(options, r); });
          }
        },
        s);
    report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  return reports;
}

}  // namespace detail

/// Solves `weights` by `stages`, one after the other, each from what the one before left.
///
/// The yardstick of the whole chain is the damped objective of its last stage, per token: tr(D' G D H) of each block of
/// rows that G couples if that is `two_sided`, else d H d' of each row (without Gram: its squared error, weighted by
/// `importance`), for the target that `shift` leaves. Rows that a stage would make worse stay as they came in. Where
/// `gram` is all zeros for no `tokens`, there is nothing to go by, and `scale_sweep` is all that runs. Data-free stages
/// are measured without H where memory does not hold a copy of it.
///
/// Bytes are the same for any executor. Memory: see `solver_presets`.
/// @throws shape_error (also where memory does not suffice), numeric_error, format_error, before any work: the message
/// names the argument.
template <format F, weight_type T, linalg_backend Linalg, executor Executor = serial_executor>
solution<F> solve(matrix_view<T const> weights, solve_context const& given, std::span<stage const> stages,
                  Linalg const& linalg, Executor&& executor = {}) {
  fp_environment_guard const guard;
  auto const context = detail::affordable(given, weights.rows, weights.columns, stages);
  auto const usable = detail::usable_stages<F>(weights, context, stages);
  float const global_scale = context.global_scale
                                 ? *context.global_scale
                                 : shared_global_scale<F>(usable, largest_magnitude(weights, executor));
  solution<F> result{quantized_matrix<F>(weights.rows, weights.columns, global_scale), {}};
  auto const out = result.quantized.view();
  out.validate();
  bool solved = false;
  if constexpr (has_gram_solvers<F>) {
    if (weights.rows != 0 && weights.columns != 0) {
      detail::guarded_executor<std::remove_reference_t<Executor>> inside{executor};
      detail::statistics known(context, usable, weights.rows, weights.columns, inside);
      auto state = detail::make_state<F>(weights, global_scale, inside);
      result.report.stages = detail::run_chain<F>(usable, known, state, linalg, inside);
      result.report.dead_columns = known.h.dead();
      detail::store_state<F>(state, out, inside);
      solved = true;
    }
  }
  if (!solved) {  // BF16 and the like: nothing to choose; or nothing at all
    encode_into<F, sweep_rule>(weights, out, executor, {.importance = context.importance});
    result.report.stages.emplace_back().name = name_of(usable.back());
  }
  result.report.solver = name_of(usable.back());
  result.report.squared_error = squared_error<F>(weights, std::as_const(result.quantized).view(), executor);
  return result;
}

/// The same by a preset, of which only the stages run for which everything is known (see `stages_for`).
template <format F, weight_type T, linalg_backend Linalg, executor Executor = serial_executor>
solution<F> solve(matrix_view<T const> weights, solve_context const& context, std::string_view preset,
                  Linalg const& linalg, Executor&& executor = {}) {
  return solve<F>(weights, context, std::span<stage const>(stages_for<F>(preset, context)), linalg, executor);
}

}  // namespace prismaquant
