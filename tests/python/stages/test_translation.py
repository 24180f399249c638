"""Recipes in the words of other tools, read by those that are installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme, apply_quantization_config
from transformers import AutoConfig, AutoModelForCausalLM

import prismaquant as pq
from prismaquant.cli import main
from prismaquant.errors import ArgumentError, RefusedError
from prismaquant.exporting import schemes
from prismaquant.exporting.translation import TOOLS
from prismaquant.files.plan import Plan
from prismaquant.files.plan import write as write_plan
from prismaquant.formats import BF16, list_schemes
from prismaquant.model import Model
from support.plans import cycled
from support.tiny_models import build


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = build("qwen3_moe", tmp_path_factory.mktemp("translation") / "model", num_hidden_layers=6)
    return pq.open(folder)


@pytest.fixture(scope="module")
def plan(source: Model) -> Plan:
    return cycled(source, list_schemes())


@pytest.fixture
def translated(plan: Plan, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    write_plan(tmp_path / "recipe.json", plan)
    return pq.convert(tmp_path / "recipe.json", tmp_path / "out", to=request.param).read_text()


def test_every_scheme_has_a_place_in_the_recipe(plan: Plan) -> None:
    assert {unit.scheme for unit in plan.units} == {*list_schemes()}


@pytest.mark.parametrize("translated", ["llm-compressor"], indirect=True)
def test_config_groups_give_every_linear_its_scheme(translated: str, source: Model, plan: Plan) -> None:
    modifier = json.loads(translated)["quant_stage"]["quant_modifiers"]["QuantizationModifier"]
    groups = {name: QuantizationScheme(**group) for name, group in modifier["config_groups"].items()}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source.path))
    apply_quantization_config(model, QuantizationConfig(config_groups=groups, ignore=modifier["ignore"]))
    modules = dict(model.named_modules())
    for unit in plan.units:
        for linear in unit.linears if not unit.is_bank else ():
            found = getattr(modules[linear], "quantization_scheme", None)
            if unit.scheme == BF16:
                assert found is None
            else:
                wanted = schemes.group_arguments(unit.scheme)
                assert found is not None, linear
                assert found.weights.num_bits == wanted.weights["num_bits"]
                assert found.weights.group_size == wanted.weights.get("group_size")
                assert (found.input_activations is None) == (wanted.input_activations is None)
    assert getattr(modules["lm_head"], "quantization_scheme", None) is None


def bits(scheme: str) -> int:
    return 16 if scheme == BF16 else int(schemes.group_arguments(scheme).weights["num_bits"])


@pytest.mark.parametrize("translated", ["auto-round"], indirect=True)
def test_layer_config_names_every_linear(translated: str, plan: Plan) -> None:
    found = json.loads(translated)
    expected = {linear: unit.scheme for unit in plan.units for linear in unit.linears}
    assert {linear: arguments["bits"] for linear, arguments in found.items()} == {
        linear: bits(scheme) for linear, scheme in expected.items()
    }
    for linear, scheme in expected.items():
        is_kept = scheme == BF16 or schemes.group_arguments(scheme).input_activations is None
        assert (found[linear]["act_bits"] == 16) == is_kept


@pytest.mark.parametrize("translated", ["modelopt"], indirect=True)
def test_quant_cfg_switches_on_what_is_quantized(translated: str, plan: Plan) -> None:
    yaml: Any = pytest.importorskip("yaml")
    document = yaml.safe_load(translated)
    assert document["quant_cfg"][0] == {"quantizer_name": "*", "enable": False}
    found = {entry["quantizer_name"]: entry["cfg"] for entry in document["quant_cfg"][1:]}
    expected = set()
    for unit in plan.units:
        for linear in unit.linears if unit.scheme != BF16 else ():
            expected.add(f"{linear}.weight_quantizer")
            if schemes.group_arguments(unit.scheme).input_activations is not None:
                expected.add(f"{linear}.input_quantizer")
    assert found.keys() == expected
    for unit in plan.units:
        if unit.scheme in ("NVFP4", "NVFP4A16"):
            cfg = found[f"{unit.linears[0]}.weight_quantizer"]
            assert cfg == {"num_bits": [2, 1], "block_sizes": {-1: 16, "type": "dynamic", "scale_bits": [4, 3]}}


@pytest.mark.parametrize("translated", ["llama.cpp"], indirect=True)
def test_tensor_types_name_every_tensor_once(translated: str, plan: Plan) -> None:
    found = dict(line.rsplit("=", 1) for line in translated.splitlines())
    kinds = {"qkv_proj": 3, "o_proj": 1, "experts": 3}
    assert len(found) == sum(kinds[unit.name.rpartition(".")[2]] for unit in plan.units)
    schemes_of = {unit.name: unit.scheme for unit in plan.units}
    widths = {"nvfp4": 4, "mxfp4": 4, "q4_0": 4, "q8_0": 8, "bf16": 16}
    for place, tensor in (("self_attn.o_proj", "attn_output"), ("mlp.experts", "ffn_down_exps")):
        width = widths[found[f"^blk[.]5[.]{tensor}[.]weight$"]]
        assert width == bits(schemes_of[f"model.layers.5.{place}"])


def test_names_are_those_of_gguf() -> None:
    constants: Any = pytest.importorskip("gguf")
    from prismaquant.exporting.translation import _GGUF_NAMES

    maps = [constants.get_tensor_name_map(architecture, 2) for architecture in constants.MODEL_ARCH]
    for place, name in _GGUF_NAMES.items():
        assert f"blk.1.{name}" in {found.get_name(f"model.layers.1.{place}") for found in maps}, place


def test_what_has_no_word_is_refused(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="unknown tool 'exl3'"):
        pq.convert(_recipe(plan, tmp_path), tmp_path / "out", to="exl3")
    assert not (tmp_path / "out").exists()


def test_a_file_that_exists_is_kept_unless_forced(plan: Plan, tmp_path: Path) -> None:
    recipe, out = _recipe(plan, tmp_path), tmp_path / "out"
    out.write_text("mine")
    for tool in TOOLS:
        with pytest.raises(RefusedError, match="exists"):
            pq.convert(recipe, out, to=tool)
    assert out.read_text() == "mine"
    assert main(["convert", str(recipe), "-o", str(out), "--to", "llama.cpp", "--force"]) == 0
    assert out.read_text().startswith("^blk")


def _recipe(plan: Plan, folder: Path) -> Path:
    write_plan(folder / "recipe.json", plan)
    return folder / "recipe.json"
