"""What a solution says about itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prismaquant.solver import Gptq, Solution, StageReport, solve
from support.problems import Problem, make_problem


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem(rows=32, columns=128, tokens=300)


@pytest.fixture(scope="module")
def solution(problem: Problem) -> Solution:
    return solve(problem.weight, "nvfp4", **problem.two_sided)


def test_every_stage_reports(problem: Problem, solution: Solution) -> None:
    gptq, descent, two_sided = solution.report.stages
    share = min(1.0, 1.2 * math.sqrt(128 / problem.tokens))
    output_share = 1.2 * math.sqrt(32 / problem.tokens)
    for stage in (gptq, descent, two_sided):
        assert stage.damping == pytest.approx(share)
        assert (stage.retries, stage.rows_kept) == (0, 0)
        assert stage.seconds > 0
    assert (gptq.output_damping, descent.output_damping) == (0, 0)
    assert two_sided.output_damping == pytest.approx(output_share)
    assert (gptq.before, gptq.passes, gptq.changed) == (None, 1, 0)
    assert 1 <= descent.passes <= 4
    assert 1 <= two_sided.passes <= 3
    assert 0 < descent.changed <= descent.passes * (problem.weight.size + 32 * 8)
    assert two_sided.changed > 0
    assert solution.report.objective == two_sided.after
    assert solution.report.seconds == sum(stage.seconds for stage in solution.report.stages)


def test_the_first_stage_has_something_before_it_only_if_it_takes_given_scales(problem: Problem) -> None:
    swept = solve(problem.weight, "nvfp4", **problem.one_sided, preset="scale_sweep").report
    given = solve(problem.weight, "nvfp4", **problem.one_sided, preset=[Gptq(scales="given")]).report
    assert swept.stages[0].before is None
    assert given.stages[0].before == swept.objective


def test_rows_that_a_stage_would_spoil_stay(problem: Problem) -> None:
    """Rounding to nearest after a good solution is worse in every row."""
    report = solve(problem.weight, "nvfp4", **problem.one_sided, preset=["gptq", "rtn"]).report
    assert report.stages[1].rows_kept == 32
    assert report.stages[1].after == report.stages[1].before


def test_damping_that_is_given_is_used(problem: Problem) -> None:
    report = solve(problem.weight, "nvfp4", **problem.two_sided, damping=0.25, output_damping=0.5).report
    assert {stage.damping for stage in report.stages} == {0.25}
    assert report.stages[-1].output_damping == 0.5


def test_a_gram_that_cannot_be_factored_is_damped_more(problem: Problem) -> None:
    no_sum = np.full((128, 128), -0.05, np.float32)  # of x x': one of its eigenvalues is negative
    np.fill_diagonal(no_sum, 1)
    report = solve(problem.weight, "nvfp4", gram=no_sum, tokens=10, damping=0.001).report
    assert report.stages[0].retries > 0
    assert report.stages[0].damping > 0.001


def test_reprs(solution: Solution) -> None:
    assert repr(solution).startswith("Solution(Quantized(nvfp4, 32 x 128, 4.508 bits per weight, global scale ")
    assert ", best, squared error " in repr(solution)
    assert repr(solution.report).startswith("SolveReport(best: gptq -> coordinate_descent -> two_sided, objective ")
    gptq, descent, _ = map(repr, solution.report.stages)
    assert gptq.startswith("StageReport(gptq: after ")
    assert "passes 1, seconds" in gptq
    assert descent.startswith("StageReport(coordinate_descent: before ")
    assert "changed " in descent
    nameless = StageReport("shift", None, None, 0.01, 0.0, 0, 0, 0, 0, 0.25)
    assert repr(nameless) == "StageReport(shift: damping 0.01, seconds 0.250)"


def test_notebooks_show_a_table_of_stages(solution: Solution) -> None:
    page = solution.report._repr_html_()
    assert page.count("<tr>") == 4
    assert "two_sided" in page
    assert "output damping" in page
    assert solution._repr_html_().startswith(page)
    assert "<svg" in solution._repr_html_()
