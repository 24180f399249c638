"""What a solver minimizes is what `plan` pays: half its objective is the ``fisher-gram`` price, undamped."""

from __future__ import annotations

import numpy as np
import pytest

from prismaquant.codec import get_codec
from prismaquant.solver import solve
from support.problems import Problem, make_problem

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")  # imported by the room of the prices


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem(rows=48, columns=128, tokens=1000)


@pytest.mark.parametrize("format", ["nvfp4", "mxfp4", "fp8_e4m3_channel", "int4_g128_asym"])
@pytest.mark.parametrize("preset", ["fast", "best"])
def test_half_the_objective_is_the_price(problem: Problem, format: str, preset: str) -> None:
    from prismaquant.calibration.collect import LinearStatistics
    from prismaquant.calibration.prices import PRICES, LinearErrors, UnitErrors
    from prismaquant.streaming import Observation

    rows = np.square(problem.gradients, dtype=np.float64).sum(axis=0)  # the diagonal of G
    solution = solve(
        problem.weight,
        format,
        **problem.one_sided,
        output_gram=rows[:, None],
        preset=preset,
        damping=0.0,
        output_damping=0.0,
    )
    assert solution.report.stages[-1].name == "two_sided"
    assert solution.report.stages[-1].damping == solution.report.stages[-1].output_damping == 0.0
    delta = torch.from_numpy(get_codec(format).decode(solution.quantized) - problem.weight)
    inputs, gradients = (torch.from_numpy(part).float() for part in (problem.inputs, problem.gradients))
    seen = Observation(inputs, gradients[None], torch.from_numpy(problem.weight))
    known = LinearStatistics(problem.tokens, 0.0, torch.from_numpy(rows), 1.0)
    price = PRICES["fisher-gram"]()
    errors = LinearErrors(seen, (inputs @ delta.T)[None], torch.zeros(1), known)
    price.add(UnitErrors([errors], problem.tokens, 1))
    assert solution.report.objective is not None
    assert 0.5 * solution.report.objective == pytest.approx(float(price.finish()) / problem.tokens, rel=1e-4)
