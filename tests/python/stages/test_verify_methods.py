"""Folders of tools with a format of their own: what is broken is named, and what cannot be judged is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import prismaquant as pq
from prismaquant.cli import main
from support.tiny_models import build

Tensors = dict[str, torch.Tensor]

E4M3 = torch.float8_e4m3fn


def of_modelopt_nvfp4(weight: torch.Tensor) -> Tensors:
    """Multipliers in the place of the divisors of compressed-tensors."""
    parts = pq.get_codec("nvfp4").encode(weight.float()).to_compressed_tensors()
    codes, scales = (torch.from_numpy(parts[part][1].view("u1")) for part in ("weight_packed", "weight_scale"))
    return {
        "weight": codes,
        "weight_scale": scales.view(E4M3),
        "weight_scale_2": torch.tensor(2.0**-10),
        "input_scale": torch.tensor(2.0**-8),
    }


def of_modelopt_fp8(weight: torch.Tensor) -> Tensors:
    scale = weight.float().abs().max() / 448
    return {"weight": (weight.float() / scale).to(E4M3), "weight_scale": scale, "input_scale": torch.tensor(0.5)}


def of_deepseek(weight: torch.Tensor) -> Tensors:
    blocks = [-(-length // 128) for length in weight.shape]
    return {"weight": weight.to(E4M3), "weight_scale_inv": torch.ones(blocks)}


def of_gptq(weight: torch.Tensor) -> Tensors:
    rows, columns = weight.shape
    return {
        "qweight": torch.zeros(columns // 8, rows, dtype=torch.int32),
        "qzeros": torch.zeros(columns // 32, rows // 8, dtype=torch.int32),
        "scales": torch.ones(columns // 32, rows, dtype=torch.float16),
    }


def of_bitsandbytes(weight: torch.Tensor) -> Tensors:
    """Names below the name of the weight, which is flattened."""
    return {
        "weight": torch.zeros(weight.numel() // 2, 1, dtype=torch.uint8),
        "weight.absmax": torch.ones(weight.numel() // 64),
    }


METHODS: Mapping[str, tuple[dict[str, object], Callable[[torch.Tensor], Tensors], str]] = {
    "ModelOpt NVFP4": ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, of_modelopt_nvfp4, "weight_scale"),
    "ModelOpt FP8": ({"quant_method": "modelopt", "quant_algo": "FP8"}, of_modelopt_fp8, "weight_scale"),
    "DeepSeek": ({"quant_method": "fp8", "weight_block_size": [128, 128]}, of_deepseek, "weight_scale_inv"),
    "bitsandbytes": ({"quant_method": "bitsandbytes"}, of_bitsandbytes, "weight.absmax"),
    "auto-round": ({"quant_method": "auto-round", "bits": 4, "group_size": 32}, of_gptq, "scales"),
}


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(method: str, tmp_path: Path) -> Path:
    """A folder as the tool would leave it; only one decoder layer is quantized."""
    section, store, _ = METHODS[method]
    folder = build("llama", tmp_path / "model")
    layers = {linear.name for linear in pq.open(folder).linears() if ".0." in linear.name}
    tensors = load_file(folder / "model.safetensors")
    for name in layers:
        tensors |= {f"{name}.{part}": value for part, value in store(tensors.pop(f"{name}.weight")).items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": section}))
    return folder


def change(folder: Path, name: str, edit: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edited = edit(tensors.pop(name))
    save_file(tensors if edited is None else {**tensors, name: edited}, folder / "model.safetensors", {"format": "pt"})


def test_a_good_folder_raises_no_alarm(folder: Path) -> None:
    report = pq.verify(folder)
    assert report.failures == ()
    (warning,) = report.warnings
    assert warning.rule == "foreign"
    assert "cannot be judged" in warning.text


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        (lambda scale: (scale.float() * 0).to(scale.dtype), "scale"),
        (lambda scale: (scale.float() * torch.nan).to(scale.dtype), "scale"),
        (lambda scale: None, "tensor-set"),
        (lambda scale: torch.cat([scale.float().reshape(-1)] * 2).to(scale.dtype), "tensor-shape"),
        (lambda scale: scale.to(torch.int64), "tensor-dtype"),
    ],
    ids=["zero", "NaN", "missing", "shape", "dtype"],
)
def test_a_broken_scale_is_named(
    folder: Path, method: str, edit: Callable[[torch.Tensor], torch.Tensor | None], rule: str
) -> None:
    name = f"model.layers.0.mlp.down_proj.{METHODS[method][2]}"
    change(folder, name, edit)
    assert [(failure.rule, failure.where) for failure in pq.verify(folder).failures] == [(rule, name)]
    assert main(["verify", str(folder)]) == 4


@pytest.mark.parametrize("method", ["ModelOpt NVFP4"], indirect=True)
def test_siblings_with_different_global_scales_are_named(folder: Path) -> None:
    change(folder, "model.layers.0.self_attn.k_proj.weight_scale_2", lambda scale: scale * 2)
    (failure,) = pq.verify(folder).failures
    assert (failure.rule, failure.where) == ("shared-scale", "model.layers.0.self_attn.qkv_proj.weight_scale_2")


@pytest.mark.parametrize("method", ["DeepSeek"], indirect=True)
def test_codes_that_are_no_numbers_are_named(folder: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    change(folder, name, lambda codes: codes.view(torch.uint8).fill_(0x7F).view(E4M3))
    (failure,) = pq.verify(folder).failures
    assert (failure.rule, failure.where) == ("fp8-nan", name)


def test_a_method_that_nobody_knows_is_only_a_warning(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "rot13"}}))
    report = pq.verify(folder)
    assert report.ok
    assert "nothing is known" in report.warnings[0].text
