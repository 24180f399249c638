"""What `evaluate` does to the inputs of experts: what the prices assume, by another library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import prismaquant as pq
from prismaquant.calibration.polish.layer import ServedInput, served_inputs
from prismaquant.evaluation.expert_inputs import rounded_expert_inputs
from prismaquant.evaluation.load import load
from prismaquant.formats import get_scheme
from prismaquant.model import Model, open_model
from prismaquant.rendering.input_scale import static_scale
from prismaquant.streaming.experts import find_bank
from support.plans import sensitivity_of, spread
from support.tiny_models import build

AMAX = 6.0


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(build("qwen3_moe", tmp_path_factory.mktemp("source") / "model"))


def written(source: Model, scheme: str, out: Path) -> Path:
    return pq.export(source, spread(source, [scheme]), out, sensitivity=sensitivity_of(source, AMAX)).path


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.from_numpy(np.random.default_rng(0).integers(2, 256, (4, 24)))
    with torch.no_grad():
        return model(ids, use_cache=False).logits


@pytest.mark.parametrize("scheme", ["NVFP4", "MXFP4", "MXFP8", "FP8_DYNAMIC", "FP8_STATIC", "W8A8"])
def test_inputs_are_rounded_as_the_prices_assume(source: Model, tmp_path: Path, scheme: str) -> None:
    folder = written(source, scheme, tmp_path / "out")
    model = load(folder)
    plain = logits(model)
    with rounded_expert_inputs(model, source, folder):
        got = logits(model)
    assert torch.equal(logits(model), plain)  # afterwards as before
    activations = get_scheme(scheme).activations
    banks = [find_bank(model.get_submodule(unit.module), unit) for unit in source.units if unit.experts]
    served = {
        bank.unit.linears[0].name: ServedInput(activations, static_scale(activations, AMAX * 12, None))  # of 12 Linears
        for bank in banks
    }
    with served_inputs({}, banks, served, None):
        expected = logits(model)
    # Of most tokens: where another expert is chosen, much changes. Scales that differ in a bit make other errors.
    lost, assumed = ((each - plain).abs().median() for each in (got, expected))
    assert lost > 1e-3
    assert lost == pytest.approx(float(assumed), rel=0.1)


@pytest.mark.parametrize("scheme", ["NVFP4A16", "BF16"])
def test_inputs_that_stay_as_they_are(source: Model, tmp_path: Path, scheme: str) -> None:
    folder = written(source, scheme, tmp_path / "out")
    model = load(folder)
    plain = logits(model)
    with rounded_expert_inputs(model, source, folder):
        assert torch.equal(logits(model), plain)
