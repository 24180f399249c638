"""What a GPU computes is what the processor computes, up to the order of its sums. Skipped without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prismaquant as pq
from support import tiny_models

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")

CALIBRATION = Path(__file__).parents[3] / "examples" / "data" / "calibration.txt"
MENU = ("NVFP4", "NVFP4A16", "FP8_DYNAMIC", "BF16")
FEW: dict[str, Any] = {"samples": 16, "price_samples": 8, "seq_len": 64}
CLOSE = 0.02  # relative: a different rounding of a Gram may turn a tie of the solver


def prices(sensitivity: pq.Sensitivity, price: str) -> np.ndarray:
    return np.array([candidate.prices[price] for unit in sensitivity.units for candidate in unit.candidates])


@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "qwen3_next", "deepseek_v3"])
def test_a_probe_on_cuda_finds_the_prices_of_the_processor(family: str, tmp_path: Path) -> None:
    source = tiny_models.build(family, tmp_path / "source", tokenizer=True)
    found = {
        device: pq.probe(
            source, CALIBRATION, out=tmp_path / device, work_dir=tmp_path / f"{device}.work", device=device,
            schemes=MENU, prices=("directional", "fisher-gram", "kfac"), **FEW,
        )
        for device in ("cpu", "cuda")
    }  # fmt: skip
    for name in ("directional", "fisher-gram", "kfac"):
        np.testing.assert_allclose(prices(found["cuda"], name), prices(found["cpu"], name), rtol=CLOSE, atol=1e-12)


def test_the_same_seed_gives_the_same_bytes_on_cuda(tmp_path: Path) -> None:
    source = tiny_models.build("llama", tmp_path / "source", tokenizer=True)
    for run in "ab":
        pq.probe(source, CALIBRATION, out=tmp_path / run, work_dir=tmp_path / f"{run}.work", device="cuda", **FEW)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_verbs_after_the_probe_run_on_cuda(tmp_path: Path) -> None:
    source = tiny_models.build("llama", tmp_path / "source", tokenizer=True)
    work, sensitivity = tmp_path / "work", tmp_path / "work" / "sensitivity"
    measured = pq.probe(
        source, CALIBRATION, out=sensitivity, work_dir=work, schemes=MENU, prices=("directional", "measured"),
        device="cuda", **FEW,
    )  # fmt: skip
    assert np.isfinite(prices(measured, "measured")).all()
    plan = pq.plan(source, sensitivity, bpw=6, schemes=("NVFP4A16", "FP8_DYNAMIC", "BF16"))
    kept = {
        device: pq.polish(source, plan, tmp_path / device, sensitivity=sensitivity, work_dir=work, device=device)
        for device in ("cpu", "cuda")
    }
    assert kept["cuda"].kl_before == pytest.approx(kept["cpu"].kl_before, rel=CLOSE)
    assert kept["cuda"].kl_after < kept["cuda"].kl_before
    first = {device: polish.units[0] for device, polish in kept.items()}
    assert first["cuda"].error_before == pytest.approx(first["cpu"].error_before, rel=CLOSE)
    assert first["cuda"].error_after == pytest.approx(first["cpu"].error_after, rel=CLOSE)
    # The others are solved for what the solved ones before them give: a tie that turns goes on through the model.
    assert kept["cuda"].kl_after == pytest.approx(kept["cpu"].kl_after, rel=0.1)
