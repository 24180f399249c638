"""Folders of other tools: no alarm where they are right, and a warning where they cannot be judged.

The configurations are those that llm-compressor 0.14 and prismaquant 0.16.2 wrote for a Llama of six layers; the
weights are ours, in the schemes that compressed-tensors' rules find in them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

import prismaquant as pq
from prismaquant.exporting.checks.resolution import read_resolution
from prismaquant.formats import BF16, get_scheme, why_not
from support.plans import plan_of, sensitivity_of
from support.resolvers import compressed_tensors

CONFIGS = json.loads((Path(__file__).parents[2] / "data" / "foreign_configs.json").read_text())


def _written(name, source, folder):
    """The folder as another tool leaves it: its configuration, no manifest and no sums."""
    section = CONFIGS[name]
    resolution, _ = read_resolution(section, is_ours=False)
    scheme_of = {group.name: group.scheme for group in resolution.groups}
    schemes = []
    for unit in source.units:
        (group,) = {compressed_tensors(section, linear.name) for linear in unit.linears}
        schemes.append(BF16 if group is None else scheme_of[group] or "FP8_DYNAMIC")
    for unit, scheme in zip(source.units, schemes, strict=True):
        assert not any(why_not(get_scheme(scheme), linear.rows, linear.columns) for linear in unit.linears)
    pq.export(source, plan_of(source, schemes), folder, sensitivity=sensitivity_of(source, 5.0))
    for file in ("prismaquant.json", "SHA256SUMS"):
        (folder / file).unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": section}))
    if section.get("kv_cache_scheme"):
        _add_cache_scales(folder, len(source.units) // 4)
    return folder


def _add_cache_scales(folder, layers):
    """As a shard of its own, which the index lists."""
    scales = {
        f"model.layers.{layer}.self_attn.{part}_scale": np.ones(1, np.float32)
        for layer in range(layers)
        for part in "kv"
    }
    save_file(scales, folder / "model-scales.safetensors")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"] |= dict.fromkeys(scales, "model-scales.safetensors")
    index["metadata"]["total_size"] += 4 * len(scales)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_good_folder_raises_no_alarm(name, tiny_llama, tmp_path):
    source = pq.open(tiny_llama)
    folder = _written(name, source, tmp_path / "out")
    report = pq.verify(folder)
    assert (report.failures, report.warnings) == ((), ())
    assert len(report.linears) == 42


def test_there_are_enough_of_them():
    assert len(CONFIGS) >= 10


def test_a_scheme_that_is_not_known_is_a_warning_and_fails_nothing(tiny_llama, tmp_path):
    folder = _written("fp8_dynamic", pq.open(tiny_llama), tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["config_groups"]["group_0"]["input_activations"]["strategy"] = "tensor"
    (folder / "config.json").write_text(json.dumps(config))
    report = pq.verify(folder)
    assert report.ok
    (warning,) = report.warnings
    assert warning.rule == "unknown-scheme"
    assert warning.text.endswith("; its weights cannot be judged")


def test_scales_of_siblings_that_vllm_has_to_level_are_a_warning(tiny_llama, tmp_path):
    folder = _written("fp8", pq.open(tiny_llama), tmp_path / "out")
    (file,) = folder.glob("model-0*.safetensors")
    tensors = load_torch(file)
    tensors["model.layers.1.mlp.gate_proj.weight_scale"] *= 2
    save_torch(tensors, file, {"format": "pt"})
    report = pq.verify(folder)
    assert report.ok
    (warning,) = report.warnings
    assert (warning.rule, warning.where) == ("shared-scale", "model.layers.1.mlp.gate_up_proj.weight_scale")


def test_missing_scales_of_keys_and_values_are_a_warning(tiny_llama, tmp_path):
    folder = _written("fp8_kv8", pq.open(tiny_llama), tmp_path / "out")
    scales = load_file(folder / "model-scales.safetensors")
    gone = [name for name in scales if name.endswith("v_scale")]
    save_file({name: scales[name] for name in scales if name not in gone}, folder / "model-scales.safetensors")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    for name in gone:
        del index["weight_map"][name]
    del index["metadata"]["total_size"]
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    report = pq.verify(folder)
    assert report.ok
    assert [(x.rule, x.where) for x in report.warnings] == [
        ("cache-scale", "model.layers.0.self_attn.v_scale and 5 more")
    ]


def test_the_class_takes_the_head_unless_it_is_ignored(tiny_llama, tmp_path):
    folder = _written("fp8_dynamic", pq.open(tiny_llama), tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["ignore"] = []
    (folder / "config.json").write_text(json.dumps(config))
    assert any(x.where == "lm_head" and "a target of group_0" in x.text for x in pq.verify(folder).failures)
