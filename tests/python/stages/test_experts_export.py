"""Banks of experts on disk: one matrix per expert under the names that engines load, and one scheme for all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prismaquant.exporting.run import export
from prismaquant.exporting.verify import verify
from prismaquant.formats import BF16
from prismaquant.model import Model, open_model
from support.plans import cycled, plan_of, sensitivity_of
from support.tiny_models import MIXTURES, build

NAMES = ("gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(build("qwen3_moe", tmp_path_factory.mktemp("model") / "experts"))


def of_banks(model: Model, *schemes: str) -> list[str]:
    """``schemes`` of the banks, in turn; everything else in BF16."""
    return [schemes[unit.layer % len(schemes)] if unit.experts else BF16 for unit in model.units]


@pytest.mark.parametrize("scheme", ["FP8_DYNAMIC", "NVFP4", "NVFP4A16", "BF16"])
def test_round_trip(scheme: str, model: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(model, plan_of(model, of_banks(model, scheme)), out, sensitivity=sensitivity_of(model))
    report = verify(out, source=model.path)
    assert report.ok, report.failures
    assert len(report.linears) == sum(len(unit.linears) for unit in model.units)
    assert all(linear.snr_db > 15 for linear in report.linears)
    assert verify(out).ok


@pytest.mark.parametrize("name", MIXTURES[1:])
def test_round_trip_of_other_architectures(name: str, tmp_path: Path) -> None:
    model = open_model(build(name, tmp_path / "model"))
    export(model, cycled(model, ("FP8_DYNAMIC", "BF16")), tmp_path / "out")
    report = verify(tmp_path / "out", source=model.path)
    assert report.ok, report.failures
    assert {linear.name for linear in report.linears} == {linear.name for linear in model.linears()}


def test_the_router_and_names_of_experts(model: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(model, plan_of(model, of_banks(model, "NVFP4", BF16)), out, sensitivity=sensitivity_of(model))
    tensors = load_file(out / "model.safetensors") if (out / "model.safetensors").exists() else {}
    for path in out.glob("model-*.safetensors"):
        tensors |= load_file(path)
    section = json.loads((out / "config.json").read_text())["quantization_config"]
    (group,) = section["config_groups"].values()
    (target,) = group["targets"]

    def matches(entries: list[str], name: str) -> bool:
        return any(re.match(entry.removeprefix("re:"), name) for entry in entries)

    for expert in range(4):
        for name in NAMES:
            assert f"model.layers.0.mlp.experts.{expert}.{name}.weight_packed" in tensors
            assert f"model.layers.1.mlp.experts.{expert}.{name}.weight" in tensors
            assert matches([target], f"model.layers.0.mlp.experts.{expert}.{name}")
            assert not matches([target], f"model.layers.1.mlp.experts.{expert}.{name}")
            assert matches(section["ignore"], f"model.layers.1.mlp.experts.{expert}.{name}")
    assert not matches([target], "model.layers.0.mlp.experts")  # in transformers this is no Linear
    assert not matches([target], "model.layers.0.mlp.gate")
    assert matches(section["ignore"], "model.layers.1.mlp.experts")
    for layer in range(2):
        assert matches(section["ignore"], f"model.layers.{layer}.mlp.gate")
        router = f"model.layers.{layer}.mlp.gate.weight"
        assert tensors[router].view(torch.uint8).numpy().tobytes() == model.read_bytes(router).tobytes()
    scales = {
        tensors[f"model.layers.0.mlp.experts.{e}.{name}.weight_global_scale"].item() for e in range(4) for name in NAMES
    }
    assert len(scales) == 1


def lookups(section: dict, name: str) -> list[str]:
    """``"ignore"``, or the groups that have ``name``."""

    def has(entries: list[str]) -> bool:
        return any(re.match(entry.removeprefix("re:"), name) for entry in entries)

    if has(section["ignore"]):
        return ["ignore"]
    return [key for key, group in section["config_groups"].items() if has(group["targets"])]


def test_experts_with_names_of_their_own_are_also_found_under_those_of_vllm(tmp_path: Path) -> None:
    model = open_model(build("mixtral", tmp_path / "model"))
    export(model, plan_of(model, of_banks(model, "FP8_DYNAMIC", BF16)), tmp_path / "out")
    section = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    for name in ("0.w1", "3.w2", "0.gate_proj", "0.up_proj", "0.down_proj"):
        assert lookups(section, f"model.layers.0.block_sparse_moe.experts.{name}") == ["group_00"]
        assert lookups(section, f"model.layers.1.block_sparse_moe.experts.{name}") == ["ignore"]
    assert lookups(section, "model.layers.0.block_sparse_moe.gate") == ["ignore"]


def test_experts_that_are_no_unit_are_ignored_and_copied(tmp_path: Path) -> None:
    model = open_model(build("gpt_oss", tmp_path / "model"))
    export(model, plan_of(model, ["FP8_DYNAMIC"] * len(model.units)), tmp_path / "out")
    section = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert lookups(section, "model.layers.1.mlp.experts") == ["ignore"]
    assert lookups(section, "model.layers.1.self_attn.qkv_proj") == ["group_00"]
    (path,) = (tmp_path / "out").glob("*.safetensors")
    written = load_file(path)
    for name in model.passthrough:
        assert written[name].view(torch.uint8).numpy().tobytes() == model.read_bytes(name).tobytes()


def test_verify_finds_a_missing_expert_and_one_of_another_scale(model: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(model, plan_of(model, of_banks(model, "NVFP4A16")), out)
    (path,) = out.glob("*.safetensors")
    tensors = load_file(path)
    del tensors["model.layers.0.mlp.experts.3.up_proj.weight_packed"]
    name = "model.layers.1.mlp.experts.2.up_proj.weight_global_scale"
    tensors[name] = 2 * tensors[name]
    save_file(tensors, path)
    rules = {(check.rule, check.where) for check in verify(out, source=model.path).failures}
    assert ("tensor-set", "model.layers.0.mlp.experts.3.up_proj.weight_packed") in rules
    assert ("shared-scale", "model.layers.1.mlp.experts.weight_global_scale") in rules
