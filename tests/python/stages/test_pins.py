"""Pins of what else would stay as it is: head, MTP layers, towers. Found, planned, written, verified, translated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import prismaquant as pq
from prismaquant.errors import ArgumentError
from prismaquant.exporting.checks.folder import read_folder
from prismaquant.exporting.run import export
from prismaquant.files.manifest import read as read_manifest
from prismaquant.model import Model, open_model
from prismaquant.solver import CALIBRATED_PRESET, DEFAULT_PRESET, preset_needs_gram
from support.hand_made import sensitivity_of
from support.plans import plan_of
from support.tiny_models import add_further_layer, build

#: Of a Qwen3.5 with a tower and a layer that predicts further tokens.
PINS = ("lm_head=W8A8", "mtp.*=FP8", "re:model.visual.blocks=NVFP4A16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build("qwen3_5", tmp_path_factory.mktemp("model") / "model", tokenizer=True)
    add_further_layer(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return open_model(folder)


@pytest.fixture(scope="module")
def written(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "out"
    plan = pq.plan(model, schemes=["FP8_DYNAMIC"], pins=PINS)
    return pq.export(model, plan, out).path


def names(model: Model) -> set[str]:
    return {unit.name for unit in model.kept_units}


def test_siblings_are_one_unit_wherever_they_are(model: Model, tmp_path: Path) -> None:
    assert names(model) == {
        "lm_head",
        "mtp.fc",
        "mtp.layers.0.self_attn.qkv_proj",
        "mtp.layers.0.self_attn.o_proj",
        "mtp.layers.0.mlp.gate_up_proj",
        "mtp.layers.0.mlp.down_proj",
        *(f"model.visual.blocks.0.{name}" for name in ("attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2")),
        *(f"model.visual.merger.{name}" for name in ("linear_fc1", "linear_fc2")),
    }
    other = names(open_model(build("mistral3", tmp_path / "mistral3")))
    assert "vision_tower.transformer.layers.0.attention.qkv_proj" in other
    assert "vision_tower.transformer.layers.0.feed_forward.gate_up_proj" in other
    assert "multi_modal_projector.patch_merger.merging_layer" not in other  # plain in engines


@pytest.mark.parametrize("packed", [True, False])
def test_experts_of_further_layers_are_one_bank(packed: bool, tmp_path: Path) -> None:
    folder = build("qwen3_5_moe", tmp_path / "model")
    add_further_layer(folder)
    if packed:
        tensors = load_file(folder / "model.safetensors")
        experts = "mtp.layers.0.mlp.experts"
        gate, up, down = (
            torch.stack([tensors.pop(f"{experts}.{number}.{name}.weight") for number in range(4)])
            for name in ("gate_proj", "up_proj", "down_proj")
        )
        tensors |= {f"{experts}.gate_up_proj": torch.cat([gate, up], 1), f"{experts}.down_proj": down}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    source = open_model(folder)
    (bank,) = (unit for unit in source.kept_units if unit.experts)
    assert (bank.name, bank.experts, len(bank.linears)) == ("mtp.layers.0.mlp.experts", 4, 12)
    assert not any(linear.name.rpartition(".")[2] == "gate" for unit in source.kept_units for linear in unit.linears)
    plan = pq.plan(source, schemes=["FP8_DYNAMIC"], pins=["mtp.layers.0.mlp.experts=NVFP4A16"])
    pq.export(source, plan, tmp_path / "out")
    pq.verify(tmp_path / "out", source=folder).raise_for_failures()


def test_the_plan_counts_them_and_says_that_they_have_no_price(model: Model) -> None:
    plain = pq.plan(model, schemes=["FP8_DYNAMIC"])
    pinned = pq.plan(model, schemes=["FP8_DYNAMIC"], pins=PINS)
    added = pinned.units[len(plain.units) :]
    assert pinned.units[: len(plain.units)] == plain.units
    assert {unit.scheme for unit in added} == {"W8A8", "FP8_DYNAMIC", "NVFP4A16"}
    assert pinned.bytes - plain.bytes == sum(unit.bytes for unit in added)
    weights = {unit.name: unit.parameters for unit in model.kept_units}
    assert pinned.parameters - plain.parameters == sum(weights[unit.name] for unit in added)
    assert {note.unit for note in pinned.notes if note.code == "not-priced"} == {unit.name for unit in added}
    assert plain.footprint is not None
    assert pinned.footprint is not None
    saved = 2 * sum(weights[unit.name] for unit in added) - sum(unit.bytes for unit in added)
    assert plain.footprint.resident - pinned.footprint.resident == saved


def test_a_size_is_met_with_them(tiny_llama: Path, tmp_path: Path) -> None:
    """What the head saves is there for the layers."""
    model = open_model(tiny_llama)
    sensitivity = priced(model)
    size = sum(tensor.nbytes for tensor in model.tensors.values()) * 3 // 5
    plain = pq.plan(model, sensitivity, size=size)
    pinned = pq.plan(model, sensitivity, size=size, pins=["lm_head=FP8"], out=tmp_path / "recipe.json")
    assert plain.predicted_kl is not None
    assert pinned.predicted_kl is not None
    assert pinned.predicted_kl < plain.predicted_kl
    assert pinned.units[-1].price is None
    report = pq.export(model, pinned, tmp_path / "out", sensitivity=sensitivity)
    assert 0.98 * size < report.manifest.tensor_bytes <= size
    explained = pq.explain(model, tmp_path / "recipe.json", sensitivity, unit="lm_head").units[0]
    assert explained.why == "it is pinned to FP8_DYNAMIC"
    assert pq.frontier(model, sensitivity, pins=["lm_head=FP8"]).vertices[0].bytes > 0


def priced(model: Model) -> pq.Sensitivity:
    """Every scheme of the default menu has a price."""
    return sensitivity_of(model, [{"NVFP4A16": 0.02, "NVFP4": 0.03, "FP8_DYNAMIC": 0.001}] * len(model.units))


@pytest.mark.parametrize(
    ("pin", "text"),
    [
        ("model.language_model.embed_tokens=W4A16", "embed_tokens.weight cannot be quantized .embedding: transformers"),
        ("*.conv1d=FP8", "conv1d.weight cannot be quantized .kept by the architecture entry"),
        ("*.input_layernorm=FP8", "cannot be quantized .no matrix.; beside the layers these can be: "),
        ("lm_head=FP8_STATIC", "lm_head: FP8_STATIC stores the range of the inputs, which nobody has seen"),
        ("lm_head=NVFP4", "lm_head: NVFP4 stores the range of the inputs"),
        ("lm_haed=FP8", "names no unit and no Linear; near: lm_head"),
    ],
)
def test_what_cannot_be_pinned_is_refused(model: Model, pin: str, text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        pq.plan(model, schemes=["FP8_DYNAMIC"], pins=[pin])


def test_a_tied_head_is_refused(tmp_path: Path) -> None:
    tied = build("llama", tmp_path / "tied", tie_word_embeddings=True)
    with pytest.raises(ArgumentError, match=r"lm_head.weight cannot be quantized \(output head: it is the embedding\)"):
        pq.plan(tied, schemes=["FP8_DYNAMIC"], pins=["lm_head=FP8"])


@pytest.mark.parametrize("scheme", ["NVFP4A16", "FP8"])
def test_what_a_reader_refuses_of_a_siglip_tower_is_refused(scheme: str, tmp_path: Path) -> None:
    folder = build("gemma3", tmp_path / "gemma3")
    with pytest.raises(ArgumentError, match=r"mlp[.]fc[12]: vLLM up to 0[.]33 does not quantize the MLP"):
        pq.plan(folder, schemes=["FP8_DYNAMIC"], pins=["re:vision_tower.*mlp=FP8"])
    attention = f"re:vision_tower.*self_attn={scheme}"
    if scheme == "FP8":
        assert len(pq.plan(folder, schemes=["FP8_DYNAMIC"], pins=[attention]).units) == 10
    else:
        with pytest.raises(ArgumentError, match=r"transformers 5[.]24 does not load a SigLIP tower"):
            pq.plan(folder, schemes=["FP8_DYNAMIC"], pins=[attention])


def test_a_pattern_that_layers_have_is_for_them_alone(model: Model) -> None:
    plan = pq.plan(model, schemes=["FP8_DYNAMIC"], pins=["re:.*mlp.down_proj=W8A8", "*=BF16", "re:.*down_proj=W8A8"])
    assert len(plan.units) == len(model.units)
    plan = pq.plan(model, schemes=["FP8_DYNAMIC"], pins=["lm_head=W8A8", "re:.*=BF16"])
    assert {unit.scheme for unit in plan.units if unit.name != "lm_head"} == {"BF16"}
    assert plan.units[-1].scheme == "W8A8"


def test_the_folder_is_whole_and_verified(model: Model, written: Path, folder: Path) -> None:
    for source in (folder, None):
        pq.verify(written, source=source).raise_for_failures()
    manifest = read_manifest(written / "prismaquant.json")
    kept = {record.name for record in manifest.kept}
    parts = read_folder(written)[0].parts
    for unit in model.kept_units:
        scheme = next((planned.scheme for planned in manifest.plan.units if planned.name == unit.name), None)
        for linear in unit.linears:
            assert (linear.weight.name in kept) == (scheme is None), linear.name
            assert ("weight_scale" in parts[linear.name]) == (scheme is not None), linear.name
    assert manifest.plan.pins == PINS
    assert '"num_speculative_tokens": 1' in pq.serve_command(written).text


def test_ignored_is_what_stays(written: Path) -> None:
    ignore = json.loads((written / "config.json").read_text())["quantization_config"]["ignore"]
    assert not any("lm_head" in entry or "mtp" in entry for entry in ignore)
    assert any(r"visual\.merger" in entry for entry in ignore)
    assert not any(entry.endswith(r"visual(?:[.].*)?$") for entry in ignore)


def test_a_part_that_was_planned_and_is_plain_is_found(written: Path, tmp_path: Path) -> None:
    """The configuration says one thing, the bytes another."""
    broken = shutil.copytree(written, tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    for group in config["quantization_config"]["config_groups"].values():
        group["targets"] = [target for target in group["targets"] if "lm_head" not in target]
    config["quantization_config"]["ignore"].append("re:.*lm_head$")
    groups = config["quantization_config"]["config_groups"]
    config["quantization_config"]["config_groups"] = {name: group for name, group in groups.items() if group["targets"]}
    (broken / "config.json").write_text(json.dumps(config))
    found = [str(check) for check in pq.verify(broken).failures]
    assert any(text.startswith("lm_head.weight_scale: is no tensor of BF16") for text in found), found


def test_convert_decodes_them(model: Model, written: Path, tmp_path: Path) -> None:
    dense = load_file(pq.convert(written, tmp_path / "dense") / "model-00001-of-00001.safetensors")
    source = load_file(model.path / "model.safetensors")
    assert dense.keys() == source.keys()
    for name in ("lm_head.weight", "mtp.fc.weight", "model.visual.blocks.0.attn.qkv.weight"):
        weight, decoded = (tensors[name].float().numpy() for tensors in (source, dense))
        assert np.abs(weight - decoded).max() <= 0.2 * np.abs(weight).max()
        assert (name == "mtp.fc.weight") or (weight != decoded).any()


def test_a_preset_that_solves_for_inputs_renders_them_without_data(tiny_llama: Path, tmp_path: Path) -> None:
    """Nothing is known of their inputs, and neither a sensitivity nor a work folder is asked for."""
    model = open_model(tiny_llama)
    pinned = model.with_units(model.kept_units)
    schemes = ["BF16"] * len(model.units) + ["NVFP4A16"]
    errors = []
    for preset in (CALIBRATED_PRESET, DEFAULT_PRESET):
        assert preset_needs_gram(preset) == (preset != DEFAULT_PRESET)
        written = export(pinned, plan_of(pinned, schemes, preset=preset), tmp_path / preset)
        record = written.manifest.linears[-1]
        assert (record.name, record.scheme) == ("lm_head", "NVFP4A16")
        errors.append(record.squared_error)
    assert errors[0] == errors[1] > 0


def test_a_bank_of_another_form_stays_as_it_is(tmp_path: Path) -> None:
    """Further layers may have other experts than the decoder's: the model is opened and written all the same."""
    folder = build("qwen3_5_moe", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["mtp.layers.0.mlp.experts.gate_up_proj"] = torch.zeros(3, 64, 64, dtype=torch.bfloat16)
    tensors["mtp.layers.0.mlp.experts.down_proj"] = torch.zeros(3, 64, 32, dtype=torch.bfloat16)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert not any(unit.name.startswith("mtp.") for unit in open_model(folder).kept_units)
    pq.export(folder, pq.plan(folder, schemes=["FP8_DYNAMIC"]), tmp_path / "out")


def test_llama_cpp_has_a_word_for_the_head_alone(model: Model, written: Path, tmp_path: Path, tiny_llama: Path) -> None:
    recipe = tmp_path / "recipe.json"
    pq.plan(tiny_llama, schemes=["FP8_DYNAMIC"], pins=["lm_head=FP8"], out=recipe)
    lines = pq.convert(recipe, tmp_path / "lines", to="llama.cpp").read_text()
    assert "^output[.]weight$=q8_0\n" in lines
    with pytest.raises(ArgumentError, match=r"nothing is known of what GGUF calls mtp"):
        pq.convert(written, tmp_path / "more", to="llama.cpp")
