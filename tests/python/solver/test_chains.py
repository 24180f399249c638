"""Chains of solvers: better where more is known, by the objective's definition, and the same bytes on any thread."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from prismaquant import CoordinateDescent, Gptq, Rtn, ScaleSweep, Shift, TwoSided
from prismaquant.codec import Quantized, get_codec
from prismaquant.formats import list_formats
from prismaquant.solver import describe_presets, list_presets, shared_global_scale, solve
from prismaquant.solver.stages import StageLike
from prismaquant.types import Array
from support.problems import Problem, damped, make_problem

FORMATS = list_formats()
#: Formats that have nothing for a solver to choose, or whose block scales are quantized themselves.
WITHOUT_GRAM = {"bf16", "fp16", "nf4_double"}


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem()


def assert_same(one: Quantized, other: Quantized) -> None:
    assert (one.format, one.shape, one.global_scale) == (other.format, other.shape, other.global_scale)
    for name in ("codes", "scales", "extra"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("format", [name for name in FORMATS if name not in WITHOUT_GRAM])
def test_best_beats_the_sweep_in_the_outputs(problem: Problem, format: str) -> None:
    sweep = solve(problem.weight, format, **problem.one_sided, preset="scale_sweep")
    best = solve(problem.weight, format, **problem.one_sided)
    assert best.report.preset == "best"
    assert [stage.name for stage in best.report.stages] == ["gptq", "coordinate_descent"]
    for solution in (sweep, best):
        assert solution.report.objective == pytest.approx(problem.objective(solution.quantized), rel=1e-4)
    assert best.report.objective is not None
    assert sweep.report.objective is not None
    assert best.report.objective < 0.9 * sweep.report.objective
    assert best.report.squared_error == get_codec(format).squared_error(problem.weight, best.quantized)


@pytest.mark.parametrize("format", sorted(WITHOUT_GRAM))
def test_formats_without_gram_solvers_are_encoded(problem: Problem, format: str) -> None:
    assert_same(solve(problem.weight, format, **problem.two_sided).quantized, get_codec(format).encode(problem.weight))
    with pytest.raises(ValueError, match=f"solver 'gptq' is not for {format}"):
        solve(problem.weight, format, **problem.one_sided, preset=["gptq"])


@pytest.mark.parametrize("format", ["nvfp4", "mxfp4", "fp8_e4m3_channel", "int4_g32_asym"])
def test_the_objective_of_presets_falls_stage_by_stage(problem: Problem, format: str) -> None:
    found = []
    coupled = damped(problem.output_gram, problem.tokens)
    for preset in describe_presets():
        solution = solve(problem.weight, format, **problem.two_sided, preset=preset.name)
        objective = problem.objective(solution.quantized, coupled)
        found.append(objective)
        if preset.needs_gram:
            assert solution.report.objective == pytest.approx(objective, rel=1e-4)
        stages = solution.report.stages
        for earlier, later in pairwise(stages):
            assert later.before == earlier.after
            assert later.after is not None
            assert later.before is not None
            assert later.after < later.before
    _, sweep, fast, best = found
    assert best <= fast < 0.8 * sweep


@pytest.mark.parametrize("format", FORMATS)
def test_a_gram_of_nothing_known_changes_no_bytes(problem: Problem, format: str) -> None:
    """Working on values and encoding them at the end is encoding, also where only the chain's end is the codec."""
    for preset in ("rtn", "scale_sweep"):
        alone = solve(problem.weight, format, preset=preset)
        chained = solve(problem.weight, format, **problem.one_sided, preset=preset)
        assert_same(alone.quantized, chained.quantized)
        assert alone.report.squared_error == chained.report.squared_error


def test_presets_without_statistics_sweep(problem: Problem) -> None:
    swept = solve(problem.weight, "nvfp4", preset="scale_sweep").quantized
    for preset in ("fast", "best"):
        solution = solve(problem.weight, "nvfp4", preset=preset)
        assert_same(solution.quantized, swept)
        assert (solution.report.preset, solution.report.stages[-1].name) == (preset, "scale_sweep")


def test_an_expert_without_tokens_is_swept(problem: Problem) -> None:
    empty = np.zeros_like(problem.gram)
    solution = solve(problem.weight, "nvfp4", gram=empty, tokens=0)
    assert_same(solution.quantized, solve(problem.weight, "nvfp4").quantized)
    assert solution.report.dead_columns == 0


def test_few_tokens_lean_on_the_pooled_gram(problem: Problem) -> None:
    few = problem.inputs[:32]
    alone = solve(problem.weight, "nvfp4", gram=few.T @ few, tokens=32)
    pooled = solve(
        problem.weight, "nvfp4", gram=few.T @ few, tokens=32, pooled_gram=problem.gram, pooled_tokens=problem.tokens
    )
    assert problem.objective(pooled.quantized) < problem.objective(alone.quantized)


def test_the_shift_answers_for_the_inputs_of_the_quantized_prefix(problem: Problem) -> None:
    """Outputs ``W X`` of the source, from inputs that the layers before have changed."""
    rng = np.random.default_rng(3)
    seen = problem.inputs + 0.3 * rng.standard_normal(problem.inputs.shape).astype(np.float32) @ np.diag(
        problem.inputs.std(axis=0)
    )
    statistics = {"gram": seen.T @ seen, "tokens": len(seen)}

    def error(quantized: Quantized) -> float:
        decoded = get_codec("nvfp4").decode(quantized)
        return float(np.square(seen @ decoded.T - problem.inputs @ problem.weight.T).sum())

    plain = solve(problem.weight, "nvfp4", **statistics)
    shifted = solve(problem.weight, "nvfp4", **statistics, cross_gram=problem.inputs.T @ seen)
    assert [stage.name for stage in shifted.report.stages] == ["shift", "gptq", "coordinate_descent"]
    assert shifted.report.stages[0].after is None
    assert error(shifted.quantized) < 0.9 * error(plain.quantized)


@pytest.mark.parametrize("format", ["nvfp4", "fp8_e4m3_block", "int4_g128"])
@pytest.mark.parametrize("preset", ["fast", "best"])
def test_threads_change_no_bytes(format: str, preset: str) -> None:
    problem = make_problem(rows=300, columns=384, tokens=500, seed=1)
    one = solve(problem.weight, format, **problem.two_sided, preset=preset, threads=1)
    for threads in (2, 7, None):
        other = solve(problem.weight, format, **problem.two_sided, preset=preset, threads=threads)
        assert_same(one.quantized, other.quantized)
        assert one.report.objective == other.report.objective


def test_a_list_of_stages_is_run_as_it_stands(problem: Problem) -> None:
    chain: list[StageLike] = [
        ScaleSweep(),
        Gptq(order="activation", scales="given"),
        "coordinate_descent",
        ("two_sided", {"block": 16, "passes": 2}),
    ]
    solution = solve(problem.weight, "nvfp4", **problem.two_sided, preset=chain)
    stages = solution.report.stages
    assert solution.report.preset is None
    assert [stage.name for stage in stages] == ["scale_sweep", "gptq", "coordinate_descent", "two_sided"]
    assert [stage.passes <= most for stage, most in zip(stages, (0, 1, 4, 2), strict=True)] == [True] * 4
    blocks = damped(problem.output_gram, problem.tokens) * np.kron(np.eye(3), np.ones((16, 16)))
    assert solution.report.objective == pytest.approx(problem.objective(solution.quantized, blocks), rel=1e-4)


def test_the_stages_of_a_preset_are_the_preset(problem: Problem) -> None:
    for preset in describe_presets():
        stages = [stage for stage in preset.stages if not isinstance(stage, Shift)]
        assert_same(
            solve(problem.weight, "nvfp4", **problem.two_sided, preset=stages).quantized,
            solve(problem.weight, "nvfp4", **problem.two_sided, preset=preset.name).quantized,
        )


def test_options_do_something(problem: Problem) -> None:
    def objective(*stages: StageLike) -> float:
        found = solve(problem.weight, "nvfp4", **problem.one_sided, preset=stages).report.objective
        assert found is not None
        return found

    natural, grouped = objective(Gptq(order="natural")), objective(Gptq(order="group_activation"))
    given = objective(Gptq(order="group_activation", scales="given"))
    assert len({natural, grouped, given}) == 3
    assert grouped < given
    assert objective(Rtn(), CoordinateDescent(sweeps=1)) > objective(Rtn(), CoordinateDescent(sweeps=4))
    assert objective(ScaleSweep(use_gram_diagonal=True)) < objective(ScaleSweep())
    assert objective(ScaleSweep(four_over_six=True)) != objective(ScaleSweep())


@pytest.mark.parametrize("preset", [*list_presets(), [Rtn(), Gptq()], [Rtn()], ["rtn", "coordinate_descent"]])
def test_siblings_share_the_scale_that_the_chain_would_take(problem: Problem, preset: str | list[StageLike]) -> None:
    only_rtn = preset in ("rtn", [Rtn()])
    scale = shared_global_scale([problem.weight, -problem.weight / 2], "nvfp4", preset=preset)
    assert scale == float(np.float32(6 * (448 if only_rtn else 256)) / np.abs(problem.weight).max())
    own = solve(problem.weight, "nvfp4", **problem.two_sided, preset=preset).quantized.global_scale
    assert own == scale
    half = solve(problem.weight / 2, "nvfp4", **problem.two_sided, preset=preset, global_scale=scale)
    assert half.quantized.global_scale == scale


@pytest.mark.parametrize("format", ["nvfp4", "mxfp4"])
def test_importance_weighs_the_sweep(problem: Problem, format: str) -> None:
    importance = np.exp(np.random.default_rng(5).standard_normal(problem.weight.shape[1])).astype(np.float32)

    def weighted(quantized: Quantized) -> float:
        return float(np.sum(np.square(problem.deviation(quantized)) * importance))

    plain = solve(problem.weight, format)
    weighed = solve(problem.weight, format, importance=importance)
    assert weighted(weighed.quantized) < weighted(plain.quantized)
    assert weighed.report.objective == pytest.approx(weighted(weighed.quantized), rel=1e-6)
    assert_same(weighed.quantized, get_codec(format).encode(problem.weight, weights=importance))
    full = np.broadcast_to(importance, problem.weight.shape)
    assert_same(weighed.quantized, solve(problem.weight, format, importance=full).quantized)


def test_dead_columns_are_counted_and_harmless() -> None:
    problem = make_problem(seed=2)
    dead = [3, 100, 101]
    inputs: Array = problem.inputs.copy()
    inputs[:, dead] = 0
    report = solve(problem.weight, "nvfp4", gram=inputs.T @ inputs, tokens=len(inputs)).report
    assert report.dead_columns == len(dead)
    assert np.isfinite(report.squared_error)


def test_two_sided_with_blocks_only(problem: Problem) -> None:
    whole = problem.output_gram
    blocks = np.concatenate([whole[i : i + 16, i : i + 16] for i in range(0, 48, 16)])
    given = solve(problem.weight, "nvfp4", **problem.one_sided, output_gram=blocks)
    cut = solve(problem.weight, "nvfp4", **problem.two_sided, preset=[Gptq(), CoordinateDescent(), TwoSided(block=16)])
    assert given.report.stages[-1].name == "two_sided"
    assert_same(given.quantized, cut.quantized)
    for asked, used in ((128, 16), (8, 8)):
        some = solve(
            problem.weight, "nvfp4", **problem.one_sided, output_gram=blocks, preset=["gptq", TwoSided(block=asked)]
        )
        same = solve(problem.weight, "nvfp4", **problem.two_sided, preset=["gptq", TwoSided(block=used)])
        assert_same(some.quantized, same.quantized)
    with pytest.raises(ValueError, match="blocks of 16 rows, which do not divide into the 6 that two_sided asks for"):
        solve(problem.weight, "nvfp4", **problem.one_sided, output_gram=blocks, preset=["gptq", TwoSided(block=6)])
