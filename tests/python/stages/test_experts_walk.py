"""`walk` sees of every expert what whole-model autograd sees, in models whose experts transformers packs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prismaquant.model import open_model
from prismaquant.streaming import Visit, Windows, walk
from support import autograd_oracle
from support.tiny_models import MIXTURES, build

WINDOWS, SEQ_LEN, PROBES = 3, 24, 2


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    ids = np.random.default_rng(1).integers(2, 256, size=(WINDOWS, SEQ_LEN))
    ids[:, 0] = 0
    return ids


def near(got: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    top = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance * top)


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_see_what_whole_model_autograd_sees(name: str, ids: np.ndarray, tmp_path: Path) -> None:
    model = open_model(build(name, tmp_path / "model"))
    visits: dict[int, list[Visit]] = {}
    for visit in walk(model, [Windows(ids, PROBES)], seed=7, batch_windows=4):
        visits.setdefault(visit.layer, []).append(visit)
    for unit in model.units:
        if not unit.experts:
            continue
        expected = autograd_oracle.observe_experts(model.path, ids, PROBES, unit.module, seed=7)
        for expert, (tokens, parts) in enumerate(expected):
            linears = unit.linears[3 * expert : 3 * expert + 3]
            for linear, (x, gradients) in zip(linears, parts.values(), strict=True):
                seen = [(visit.batch.window * SEQ_LEN, visit.linears[linear.name]) for visit in visits[unit.layer]]
                positions = torch.cat([first + each.positions for first, each in seen])
                assert torch.equal(positions, tokens)
                near(torch.cat([each.input for _, each in seen]), x, 1e-4)
                near(torch.cat([each.gradients for _, each in seen], dim=1), gradients, 1e-3)
                assert torch.equal(seen[0][1].weight, torch.from_numpy(model.read_weight(linear)))
            gate, up = (visits[unit.layer][0].linears[linear.name] for linear in linears[:2])
            assert gate.input is up.input


@pytest.mark.parametrize("name", MIXTURES)
def test_the_other_linears_see_what_they_see_in_the_whole_model(name: str, ids: np.ndarray, tmp_path: Path) -> None:
    model = open_model(build(name, tmp_path / "model"))
    names = [linear.name for unit in model.units if not unit.experts for linear in unit.linears]
    expected = autograd_oracle.observe(model.path, ids, PROBES, names, seed=7)
    visits = list(walk(model, [Windows(ids, PROBES)], seed=7, batch_windows=100))
    seen = {name: each for visit in visits for name, each in visit.linears.items()}
    for linear in names:
        near(seen[linear].input, expected[linear][0], 1e-4)
        near(seen[linear].gradients, expected[linear][1], 1e-3)
