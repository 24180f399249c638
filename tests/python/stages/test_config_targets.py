"""Which layer gets which scheme must not depend on the reader, nor on the names it gives to the layers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from prismaquant.exporting.config import config_json, quantization_config
from prismaquant.formats import BF16, list_schemes
from prismaquant.model import Model, open_model
from support.plans import cycled, mixed, plan_of
from support.resolvers import compressed_tensors, vllm_new, vllm_old
from support.tiny_models import build

#: What stands before ``layers`` for transformers, and before the same layer for vLLM.
PREFIXES = (("model", "model"), ("model.language_model", "language_model.model"))
CLASSES = {"qkv_proj": "QKVParallelLinear", "gate_up_proj": "MergedColumnParallelLinear"}


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Twelve layers: numbers of one digit are then parts of numbers of two."""
    folder = tmp_path_factory.mktemp("deep") / "llama"
    return open_model(build("llama", folder, num_hidden_layers=12, hidden_size=32, intermediate_size=32))


def names(model: Model) -> Iterator[tuple[str, str, str, str, str]]:
    """Unit, name of one of its layers in transformers and in vLLM, class in vLLM, for every way to nest the model."""
    for unit in model.units:
        last = unit.name.rpartition(".")[2]
        for linear in unit.linears:
            for ours, theirs in PREFIXES:
                yield (
                    unit.name,
                    linear.name.replace("model", ours, 1),
                    unit.name.replace("model", theirs, 1),
                    CLASSES.get(last, "RowParallelLinear"),
                    linear.name.replace("model", theirs, 1),
                )


@pytest.mark.parametrize("seed", range(8))
def test_three_readers_agree_under_every_name(deep: Model, seed: int) -> None:
    plan = mixed(deep, list_schemes(), seed=seed)
    scheme_of = {unit.name: unit.scheme for unit in plan.units}
    section = quantization_config(deep, plan.units)
    assert section is not None
    present = [scheme for scheme in list_schemes() if scheme in scheme_of.values() and scheme != BF16]
    group_of = {BF16: None, **{scheme: f"group_{number:02d}" for number, scheme in enumerate(present)}}
    for unit, hf_name, vllm_name, vllm_class, unfused in names(deep):
        wanted = group_of[scheme_of[unit]]
        assert compressed_tensors(section, hf_name) == wanted, hf_name
        for name in (vllm_name, unfused):
            assert vllm_old(section, name, vllm_class) == wanted, name
            assert vllm_new(section, name, vllm_class) == wanted, name


def test_no_layer_is_matched_by_two_expressions(deep: Model) -> None:
    section = quantization_config(deep, mixed(deep, list_schemes()).units)
    assert section is not None
    targets = [target for group in section["config_groups"].values() for target in group["targets"]]
    for _, hf_name, vllm_name, _, _ in names(deep):
        for name in (hf_name, vllm_name):
            assert sum(re.match(entry[3:], name) is not None for entry in [*targets, *section["ignore"]]) == 1, name


@pytest.mark.parametrize(
    "name",
    [
        "lm_head",
        "language_model.lm_head",
        "model.embed_tokens",
        "vision_tower.encoder.layers.0.self_attn.q_proj",
        "model.vision_tower.encoder.layers.0.mlp.down_proj",
        "model.visual.blocks.0.attn.qkv",
        "mtp.layers.0.mlp.down_proj",
        "model.layers.12.mlp.down_proj",
        "model.layers.0.mlp.down_proj_norm",
        "model.layers.0.mlp.down_proj.extra",
        "model.layers.00.mlp.down_proj",
        "xmodel.layers.0.mlp.down_proj",
        "model.layers.0.self_attn.down_proj",
        "model.layers.0xmlp.down_proj",
    ],
)
def test_other_layers_are_left_alone(deep: Model, name: str) -> None:
    section = quantization_config(deep, cycled(deep, ("FP8_DYNAMIC",)).units)
    assert section is not None
    assert compressed_tensors(section, name) is None
    assert vllm_new(section, name, "ColumnParallelLinear") is None


def test_head_is_ignored_by_name(deep: Model) -> None:
    """A reader that refuses layers without a target must find the head among the ignored ones."""
    section = quantization_config(deep, cycled(deep, ("NVFP4A16",)).units)
    assert section is not None
    for name in ("lm_head", "language_model.lm_head"):
        assert vllm_old(section, name, "ParallelLMHead") is None


def test_matrices_that_are_no_unit_are_ignored(tmp_path: Path) -> None:
    model = open_model(build("llama", tmp_path / "llama"))
    router = "model.layers.1.mlp.router.weight"
    shape = replace(model.tensors["model.embed_tokens.weight"], name=router, shape=(4, 64))
    model = replace(
        model, tensors={**model.tensors, router: shape}, passthrough=tuple(sorted((*model.passthrough, router)))
    )
    section = quantization_config(model, cycled(model, ("NVFP4A16",)).units)
    assert section is not None
    assert section["ignore"] == [
        "re:.*lm_head$",
        "re:^(?:model[.]|language_model[.])+layers[.](?:1)[.]mlp[.]router$",
    ]


def test_expressions_are_the_documented_ones(deep: Model) -> None:
    schemes = {unit.name: BF16 for unit in deep.units}
    for layer in (0, 1, 11):
        schemes[f"model.layers.{layer}.self_attn.qkv_proj"] = "NVFP4A16"
    schemes["model.layers.3.mlp.down_proj"] = "FP8_DYNAMIC"
    section = quantization_config(deep, plan_of(deep, schemes.values()).units)
    assert section is not None
    assert {name: group["targets"] for name, group in section["config_groups"].items()} == {
        "group_00": [
            "re:^(?:model[.]|language_model[.])+layers[.](?:0|1|11)[.](?:self_)?attn[.]"
            "(?:q_proj|k_proj|v_proj|qkv_proj)$"
        ],
        "group_01": ["re:^(?:model[.]|language_model[.])+layers[.](?:3)[.]mlp[.]down_proj$"],
    }


@pytest.mark.parametrize(
    ("schemes", "expected"),
    [
        (("NVFP4A16", "BF16"), "nvfp4-pack-quantized"),
        (("NVFP4A16", "NVFP4"), "nvfp4-pack-quantized"),
        (("FP8_DYNAMIC",), "float-quantized"),
        (("NVFP4", "FP8_DYNAMIC"), "mixed-precision"),
    ],
)
def test_top_level_format(deep: Model, schemes: tuple[str, ...], expected: str) -> None:
    section = quantization_config(deep, cycled(deep, schemes).units)
    assert section is not None
    assert section["format"] == expected
    assert all(group["format"] != "mixed-precision" for group in section["config_groups"].values())


def test_config_without_quantized_units_is_the_source_file(deep: Model) -> None:
    assert config_json(deep, cycled(deep, [BF16])) == (deep.path / "config.json").read_bytes()
