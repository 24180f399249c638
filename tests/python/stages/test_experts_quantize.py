"""From a folder with experts to a measured checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import prismaquant as pq
from prismaquant.codec import get_codec
from prismaquant.evaluation.load import load
from prismaquant.exporting.run import export
from prismaquant.model import open_model
from prismaquant.rendering.render import render
from support.plans import plan_of, sensitivity_of
from support.tiny_models import MIXTURES, build


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("qwen3_moe", tmp_path_factory.mktemp("model") / "experts", tokenizer=True)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experts that take every scheme."""
    sizes = {"hidden_size": 128, "moe_intermediate_size": 128}
    return build("qwen3_moe", tmp_path_factory.mktemp("model") / "wide", tokenizer=True, **sizes)


def test_quantize_and_evaluate(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "ids.npy"
    np.save(data, np.random.default_rng(0).integers(2, 4096, size=(24, 32)).astype(np.uint16))
    settings = {"data": data, "samples": 8, "price_samples": 8, "seq_len": 32, "price_probes": 2}
    report = pq.quantize(folder, tmp_path / "out", bpw=8.0, **settings)
    polish = report.export.manifest.polish
    assert polish is not None
    schemes = {unit.name: unit.scheme for unit in report.plan.units}
    banks = {unit.name for unit in pq.open(folder).units if unit.experts}
    assert any(schemes[name] != "BF16" for name in banks)
    assert not banks & {unit.name for unit in polish.units}
    assert polish.kl_before > 0
    assert pq.verify(tmp_path / "out", source=folder).ok
    found = pq.evaluate(tmp_path / "out", source=folder, data=data, tokens=256, seq_len=32)
    assert 0 < found.kl.value < 0.5


@pytest.mark.parametrize("name", MIXTURES[1:])
def test_other_architectures_from_folder_to_measurement(name: str, tmp_path: Path) -> None:
    folder = build(name, tmp_path / "model", tokenizer=True)
    data = tmp_path / "ids.npy"
    np.save(data, np.random.default_rng(0).integers(2, 4096, size=(12, 16)).astype(np.uint16))
    settings = {"data": data, "samples": 4, "price_samples": 4, "seq_len": 16, "price_probes": 1, "preset": "fast"}
    pq.quantize(folder, tmp_path / "out", bpw=14.0, schemes=("NVFP4", "FP8_DYNAMIC", "BF16"), **settings)
    assert pq.verify(tmp_path / "out", source=folder).ok
    found = pq.evaluate(tmp_path / "out", source=folder, data=data, tokens=128, seq_len=16)
    assert 0 < found.kl.value < 0.5


@pytest.mark.parametrize(
    "scheme", ["NVFP4", "NVFP4A16", "MXFP4", "MXFP8", "FP8_DYNAMIC", "FP8_STATIC", "FP8_BLOCK", "W8A8", "W4A16"]
)
def test_experts_are_evaluated_with_the_weights_that_were_written(scheme: str, wide: Path, tmp_path: Path) -> None:
    """transformers alone would leave the global scale of NVFP4 experts out."""
    model = open_model(wide)
    schemes = [scheme if unit.experts else "BF16" for unit in model.units]
    export(model, plan_of(model, schemes), tmp_path / "out", sensitivity=sensitivity_of(model))
    loaded = load(tmp_path / "out")
    for unit in model.units:
        if not unit.experts:
            continue
        module = loaded.get_submodule(unit.module)
        format = pq.formats.get_scheme(scheme).weight_format
        quantized = render(model, unit, format, preset="scale_sweep").quantized
        for number, linear in enumerate(unit.linears):
            expert, kind = divmod(number, 3)
            rows = linear.rows
            found = (
                module.gate_up_proj[expert, :rows],
                module.gate_up_proj[expert, rows:],
                module.down_proj[expert],
            )[kind]
            wanted = torch.from_numpy(get_codec(format).decode(quantized[linear.name])).to(torch.bfloat16)
            torch.testing.assert_close(found, wanted.float(), rtol=2**-7, atol=0)


@pytest.mark.parametrize("of_banks", [("NVFP4A16", "FP8_DYNAMIC"), ("BF16", "BF16")])
def test_banks_of_different_schemes_are_evaluated(of_banks: tuple[str, str], folder: Path, tmp_path: Path) -> None:
    """transformers alone expects one scheme for all experts of a model that is quantized at all."""
    model = open_model(folder)
    schemes = [of_banks[unit.layer] if unit.experts else "FP8_DYNAMIC" for unit in model.units]
    export(model, plan_of(model, schemes), tmp_path / "out")
    loaded = load(tmp_path / "out")
    for unit in model.units:
        if unit.experts:
            gate = torch.from_numpy(model.read_weight(unit.linears[0]))
            found = loaded.get_submodule(unit.module).gate_up_proj[0, : len(gate)].detach()
            assert float((found - gate).norm() / gate.norm()) < (0.2 if of_banks[unit.layer] != "BF16" else 1e-9)
