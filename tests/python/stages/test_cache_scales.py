"""Ranges of keys and values: measured by the probe, written for an FP8 KV cache, judged by verify, used by eval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import deserialize
from safetensors.torch import load_file, save_file
from transformers import DynamicCache

import prismaquant as pq
from prismaquant.errors import BudgetError
from prismaquant.evaluation.cache import read_cache_scales, rounded_cache
from prismaquant.evaluation.load import load as load_in_float32
from prismaquant.files.sensitivity import Sensitivity
from prismaquant.streaming import Windows, walk
from prismaquant.streaming.model_class import model_class, read_config
from support.tiny_models import build

TOKENS = np.random.default_rng(1).integers(3, 256, 4000)


def scales_in(folder: Path) -> dict[str, list[float]]:
    parts = (tensor for file in folder.glob("*.safetensors") for tensor in deserialize(file.read_bytes()))
    return {
        name: np.frombuffer(tensor["data"], "<f4").tolist()
        for name, tensor in parts
        if name.endswith(("k_scale", "v_scale"))
    }


def probed(folder: Path, work: Path) -> Sensitivity:
    np.save(work / "tokens.npy", TOKENS)
    return pq.probe(
        folder,
        work / "tokens.npy",
        out=work / "sensitivity.safetensors",
        schemes=("FP8_DYNAMIC", "BF16"),
        preset="rtn",
        prices=("fisher-trace",),
        samples=4,
        price_samples=2,
        seq_len=32,
        work_dir=work,
    )


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3_text", "gemma3", "qwen3_moe"])
def test_ranges_are_those_of_the_cache_of_transformers(name: str, tmp_path: Path) -> None:
    folder = build(name, tmp_path / "model")
    ids = TOKENS[:96].reshape(4, 24)
    visits = list(walk(pq.open(folder), [Windows(ids)], batch_windows=4))
    model: Any = model_class(read_config(folder)).from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        cache = model(torch.from_numpy(ids), use_cache=True).past_key_values
    assert [visit.layer for visit in visits] == [1, 0]
    for visit in visits:
        (seen,) = visit.caches
        kept = cache.layers[visit.layer]
        assert seen.key_amax == pytest.approx(float(kept.keys.abs().max()), rel=1e-4)
        assert seen.value_amax == pytest.approx(float(kept.values.abs().max()), rel=1e-4)
        assert f"{seen.name}.k_proj.weight" in pq.open(folder).tensors


def test_layers_that_keep_a_state_have_none(tmp_path: Path) -> None:
    found = probed(build("qwen3_5_text", tmp_path / "model"), tmp_path)
    assert [seen.layer for seen in found.caches] == [1]  # the other one is linear attention


def test_latents_have_no_scales(tmp_path: Path) -> None:
    folder = build("deepseek_v3", tmp_path / "model")
    found = probed(folder, tmp_path)
    assert found.caches  # transformers keeps what engines make of the latent
    plan = pq.plan(folder, schemes=("FP8_DYNAMIC",), kv="fp8", context=64)
    pq.export(folder, plan, tmp_path / "out", sensitivity=found)
    assert scales_in(tmp_path / "out") == {}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("llama", tmp_path_factory.mktemp("model") / "llama", tokenizer=True)


@pytest.fixture(scope="module")
def sensitivity(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Sensitivity:
    return probed(model, tmp_path_factory.mktemp("probe"))


@pytest.fixture
def folder(model: Path, sensitivity: Sensitivity, tmp_path: Path) -> Path:
    plan = pq.plan(model, schemes=("FP8_DYNAMIC",), kv="fp8", context=64)
    pq.export(model, plan, tmp_path / "out", sensitivity=sensitivity)
    return tmp_path / "out"


def test_the_folder_has_a_multiplier_for_each(folder: Path, model: Path, sensitivity: Sensitivity) -> None:
    expected = {}
    for seen in sensitivity.caches:
        expected[f"{seen.name}.k_scale"] = np.float32(seen.key_amax) / np.float32(448)
        expected[f"{seen.name}.v_scale"] = np.float32(seen.value_amax) / np.float32(448)
    assert scales_in(folder) == {name: [float(scale)] for name, scale in expected.items()}
    section = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert section["kv_cache_scheme"] == {
        "num_bits": 8,
        "type": "float",
        "strategy": "tensor",
        "symmetric": True,
        "dynamic": False,
    }
    assert pq.verify(folder, source=model).ok


def test_a_plan_for_another_cache_writes_none(model: Path, sensitivity: Sensitivity, tmp_path: Path) -> None:
    pq.export(model, pq.plan(model, schemes=("FP8_DYNAMIC",)), tmp_path / "out", sensitivity=sensitivity)
    assert scales_in(tmp_path / "out") == {}
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["kv_cache_scheme"] is None


def test_they_count_in_the_size_of_the_folder(model: Path, sensitivity: Sensitivity, tmp_path: Path) -> None:
    exact = pq.plan(model, schemes=("FP8_DYNAMIC",), kv="fp8").bytes
    passthrough = sum(pq.open(model).tensors[name].nbytes for name in pq.open(model).passthrough)
    size = exact + passthrough + 2 * 2 * 4
    asked: dict[str, Any] = {"schemes": ("FP8_DYNAMIC", "BF16"), "kv": "fp8", "price": "fisher-trace"}
    plan = pq.plan(model, sensitivity, size=size, **asked)
    written = pq.export(model, plan, tmp_path / "out", sensitivity=sensitivity)
    assert written.manifest.tensor_bytes == size
    with pytest.raises(BudgetError):
        pq.plan(model, sensitivity, size=size - 1, **asked)


def test_the_command_keeps_them_in_fp8_and_says_what_was_not_measured(folder: Path) -> None:
    found = pq.serve_command(folder)
    assert list(found.arguments[3:]) == ["--kv-cache-dtype", "fp8"]
    assert any("its loss is part of what eval measures" in note for note in found.notes)


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (torch.tensor([0.0]), "scale"),
        (torch.tensor([torch.nan]), "scale"),
        (torch.tensor([-1.0]), "scale"),
        (torch.tensor([1]), "tensor-dtype"),
        (None, "cache-scale"),
    ],
    ids=["zero", "NaN", "negative", "dtype", "missing"],
)
def test_verify_looks_at_them(folder: Path, value: torch.Tensor | None, rule: str) -> None:
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    name = "model.layers.1.self_attn.v_scale"
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, file, {"format": "pt"})
    report = pq.verify(folder)
    assert rule in {check.rule for check in (*report.failures, *report.warnings) if name in check.where}
    assert not report.ok


class RoundingCache(DynamicCache):
    """Keeps keys and values as FP8 codes times a scale; attention reads what it keeps."""

    def __init__(self, scales: dict[str, list[float]]) -> None:
        super().__init__()
        self.scales = scales

    def update(self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        attention = f"model.layers.{layer_idx}.self_attn"
        rounded = []
        for part, suffix in ((key, "k_scale"), (value, "v_scale")):
            (scale,) = self.scales[f"{attention}.{suffix}"]
            rounded.append((part / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale)
        return super().update(*rounded, layer_idx, *args, **kwargs)


@pytest.mark.filterwarnings("ignore:.*past_key_values:FutureWarning")
def test_evaluation_rounds_what_a_cache_would_keep(folder: Path) -> None:
    model, ids = load_in_float32(folder), torch.from_numpy(TOKENS[:48].reshape(2, 24))
    with torch.no_grad():
        plain = model(ids, use_cache=False).logits
        expected = model(ids, past_key_values=RoundingCache(scales_in(folder)), use_cache=True).logits
        with rounded_cache(model, read_cache_scales(folder)):
            found = model(ids, use_cache=False).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert float((found - plain).abs().max()) > 100 * float((found - expected).abs().max())


def test_names_around_the_language_model_do_not_matter(tmp_path: Path) -> None:
    source = build("gemma3", tmp_path / "model", tokenizer=True)
    plan = pq.plan(source, schemes=("FP8_DYNAMIC",), kv="fp8", context=64)
    pq.export(source, plan, tmp_path / "out", sensitivity=probed(source, tmp_path))
    assert len(scales_in(tmp_path / "out")) == 4
    model, ids = load_in_float32(tmp_path / "out"), torch.from_numpy(TOKENS[:24].reshape(1, 24))
    with torch.no_grad(), rounded_cache(model, read_cache_scales(tmp_path / "out")):
        rounded = model(ids, use_cache=False).logits
        assert not torch.equal(rounded, load_in_float32(tmp_path / "out")(ids, use_cache=False).logits)


def test_evaluation_takes_the_folder(folder: Path, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "held-out.npy", TOKENS)
    report = pq.evaluate(folder, source=model, data=tmp_path / "held-out.npy", tokens=256, seq_len=32)
    assert 0 < report.kl.value < 0.1
