"""Folders whose layers have experts: the bank is one unit, one tensor per expert or all in one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor, stack

from prismaquant.errors import ModelError
from prismaquant.model import Model, open_model
from support import hostile
from support.tiny_models import MIXTURES, build

EXPERTS = 4
BANK = "model.layers.1.mlp.experts"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("qwen3_moe", tmp_path_factory.mktemp("model") / "experts")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return open_model(folder)


def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def write(folder: Path, found: dict[str, Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / "model.safetensors")


def pack(folder: Path) -> None:
    """Rewrite the experts as transformers holds them."""
    found = tensors(folder)
    for layer in range(2):
        bank = f"model.layers.{layer}.mlp.experts"
        gate, up, down = (
            stack([found.pop(f"{bank}.{e}.{name}.weight") for e in range(EXPERTS)])
            for name in ("gate_proj", "up_proj", "down_proj")
        )
        found[f"{bank}.gate_up_proj"] = stack([gate, up], dim=1).flatten(1, 2)
        found[f"{bank}.down_proj"] = down
    write(folder, found)


def test_a_bank_is_one_unit_of_all_its_linears(model: Model) -> None:
    assert [unit.name.split(".", 3)[3] for unit in model.units] == 2 * [
        "self_attn.qkv_proj",
        "self_attn.o_proj",
        "mlp.experts",
    ]
    bank = model.units[-1]
    assert bank.experts == EXPERTS
    assert [linear.name for linear in bank.linears[:4]] == [
        f"{BANK}.0.gate_proj",
        f"{BANK}.0.up_proj",
        f"{BANK}.0.down_proj",
        f"{BANK}.1.gate_proj",
    ]
    assert [(linear.rows, linear.columns) for linear in bank.linears] == EXPERTS * [(32, 64), (32, 64), (64, 32)]
    assert repr(bank) == f"Unit({BANK}, 4 experts of 32x64 32x64 64x32)"


def test_the_router_is_kept(model: Model) -> None:
    assert model.unlisted == ("model.layers.0.mlp.gate.weight", "model.layers.1.mlp.gate.weight")


def test_packed_experts_are_the_same_linears(model: Model, tmp_path: Path) -> None:
    packed = build("qwen3_moe", tmp_path / "packed")
    pack(packed)
    other = open_model(packed)
    assert [linear.name for linear in other.linears()] == [linear.name for linear in model.linears()]
    for one, two in zip(model.linears(), other.linears(), strict=True):
        assert np.array_equal(model.read_weight(one), other.read_weight(two))
        assert np.array_equal(model.read_stored(one), other.read_stored(two))
    assert other.passthrough == model.passthrough


def test_layers_without_experts_have_the_dense_units(tmp_path: Path) -> None:
    model = open_model(build("qwen3_moe", tmp_path / "dense", mlp_only_layers=[0]))
    assert [unit.name.partition(".layers.")[2] for unit in model.units] == [
        "0.self_attn.qkv_proj",
        "0.self_attn.o_proj",
        "0.mlp.gate_up_proj",
        "0.mlp.down_proj",
        "1.self_attn.qkv_proj",
        "1.self_attn.o_proj",
        "1.mlp.experts",
    ]


@pytest.mark.parametrize(
    ("drop", "config", "fragment"),
    [
        (f"{BANK}.2.up_proj.weight", {}, f"has no tensor '{BANK}.2.up_proj.weight'"),
        (None, {"num_experts": 3, "num_local_experts": 3}, "config.json says that there are 3 experts"),
        (None, {"num_experts": None, "num_local_experts": None}, "the number of experts is None"),
        (None, {"num_experts": -1, "num_local_experts": -1}, "the number of experts is -1"),
    ],
)
def test_banks_that_do_not_fit_are_refused(drop: str | None, config: dict, fragment: str, tmp_path: Path) -> None:
    folder = build("qwen3_moe", tmp_path / "bad")
    if drop:
        found = tensors(folder)
        del found[drop]
        write(folder, found)
    hostile.edit_config(folder, **config)
    with pytest.raises(ModelError) as caught:
        open_model(folder)
    assert fragment in str(caught.value)


def test_packed_experts_of_another_number_are_refused(tmp_path: Path) -> None:
    folder = build("qwen3_moe", tmp_path / "bad")
    pack(folder)
    hostile.edit_config(folder, num_experts=3, num_local_experts=3)
    with pytest.raises(ModelError, match=r"expected \[3, rows, columns\]"):
        open_model(folder)


def test_experts_that_engines_cannot_read_quantized_are_kept(tmp_path: Path) -> None:
    model = open_model(build("gpt_oss", tmp_path / "model"))
    assert {unit.name.partition(".self_attn.")[2] for unit in model.units} == {"qkv_proj", "o_proj"}
    experts = {f"model.layers.{layer}.mlp.experts.{x}_proj" for layer in range(2) for x in ("gate_up", "down")}
    assert experts < set(model.unlisted)
    assert model.unknown == ()


def test_a_folder_in_mxfp4_is_refused(tmp_path: Path) -> None:
    folder = build("gpt_oss", tmp_path / "model")
    hostile.edit_config(folder, quantization_config={"quant_method": "mxfp4"})
    with pytest.raises(ModelError, match="quantized already"):
        open_model(folder)


@pytest.mark.parametrize("name", MIXTURES)
def test_routers_are_known_and_kept(name: str, tmp_path: Path) -> None:
    model = open_model(build(name, tmp_path / "model"))
    assert model.unlisted
    assert model.unknown == ()
