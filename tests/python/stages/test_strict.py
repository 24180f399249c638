"""Weights that the architecture entry does not know are kept and named, or refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import prismaquant as pq
from prismaquant.errors import ModelError
from support import tiny_models

NEW = "model.layers.1.mlp.adapter"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tiny_models.build("llama", tmp_path / "model")
    path = made / "model.safetensors"
    save_file({**load_file(path), f"{NEW}.weight": torch.ones(4, 4, dtype=torch.bfloat16)}, path, {"format": "pt"})
    return made


def test_they_are_kept_and_named(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "prismaquant"):
        pq.quantize(folder, tmp_path / "out", schemes=["FP8_DYNAMIC"])
    assert [f"{NEW}.weight" in record.getMessage() for record in caplog.records] == [True]
    assert load_file(next((tmp_path / "out").glob("*.safetensors")))[f"{NEW}.weight"].dtype == torch.bfloat16


def test_strict_refuses_them_before_any_work(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.zeros((4, 16), np.int64))
    with pytest.raises(ModelError, match=f"does not know {NEW}.weight"):
        pq.quantize(folder, tmp_path / "out", schemes=["FP8_DYNAMIC"], strict=True)
    with pytest.raises(ModelError, match=f"does not know {NEW}.weight"):
        pq.probe(folder, tmp_path / "ids.npy", strict=True)
    assert not (tmp_path / "out").exists()


def test_layers_that_predict_further_tokens_are_kept(tmp_path: Path) -> None:
    folder = tiny_models.build("deepseek_v3", tmp_path / "model")
    path, name = folder / "model.safetensors", "model.layers.2.mlp.up_proj.weight"
    save_file({**load_file(path), name: torch.ones(4, 4, dtype=torch.bfloat16)}, path, {"format": "pt"})
    model = pq.open(folder)
    assert name in model.unlisted
    assert model.unknown == ()


def test_a_weight_outside_of_any_layer_number_is_unknown(tmp_path: Path) -> None:
    folder = tiny_models.build("llama", tmp_path / "model")
    path, name = folder / "model.safetensors", "model.layers.weight"
    save_file({**load_file(path), name: torch.ones(4, 4, dtype=torch.bfloat16)}, path, {"format": "pt"})
    assert pq.open(folder).unknown == (name,)


def test_strict_takes_what_an_entry_keeps_on_purpose(tmp_path: Path) -> None:
    folder = tiny_models.build("qwen3_moe", tmp_path / "model")
    pq.quantize(folder, tmp_path / "out", schemes=["FP8_DYNAMIC"], strict=True)
