"""Models that also see: their language model is quantized, their towers and further layers stay as they are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import prismaquant as pq
from prismaquant.exporting.run import export
from prismaquant.files.manifest import read as read_manifest
from prismaquant.model import open_model
from prismaquant.streaming import calls
from prismaquant.streaming.model_class import model_class, read_config
from prismaquant.streaming.skeleton import Skeleton
from support.hostile import edit_config
from support.plans import cycled, sensitivity_of
from support.tiny_models import MULTIMODAL, add_further_layer, build

TOWERS = {"gemma3": "vision_tower", "mistral3": "vision_tower"}  # of all others "visual"


@pytest.fixture(scope="module", params=MULTIMODAL)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(request.param, tmp_path_factory.mktemp("model") / request.param, tokenizer=True)


def test_every_linear_of_the_language_model_is_in_exactly_one_unit(folder: Path) -> None:
    model = open_model(folder)
    theirs = model_class(read_config(folder)).from_pretrained(folder)
    prefix = model.architecture.module_name(model.architecture.layers)
    kept = tuple(model.architecture.kept)
    expected = {
        name
        for name, module in theirs.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith(prefix) and not name.endswith(kept or ("-",))
    }
    found = [
        model.architecture.module_name(linear.name) for linear in model.linears() if ".experts." not in linear.name
    ]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert model.unknown == ()
    assert TOWERS.get(folder.name, "visual") in model.outside


def test_layer_by_layer_gives_the_logits_of_the_whole_model(folder: Path) -> None:
    theirs = model_class(read_config(folder)).from_pretrained(folder, dtype=torch.float32)
    ids = torch.from_numpy(np.random.default_rng(0).integers(2, 4096, size=(2, 40)))
    skeleton = Skeleton(open_model(folder))
    with torch.no_grad():
        with skeleton.filled((*skeleton.embedding, *skeleton.rest)):
            hidden, made = calls.embed(skeleton, ids)
        for layer, call in enumerate(made):
            with skeleton.filled(skeleton.layer_tensors[layer]):
                hidden = calls.run(skeleton, layer, hidden, call)
        with skeleton.filled((*skeleton.head, *skeleton.rest)):
            logits = calls.logits(skeleton, hidden.flatten(0, 1))
        expected = theirs(ids).logits
    torch.testing.assert_close(logits.view(expected.shape), expected, rtol=1e-4, atol=1e-4)


def test_from_folder_to_measurement(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "ids.npy"
    np.save(data, np.random.default_rng(0).integers(2, 4096, size=(12, 16)).astype(np.uint16))
    settings = {"data": data, "samples": 4, "price_samples": 4, "seq_len": 16, "price_probes": 1, "preset": "fast"}
    pq.quantize(folder, tmp_path / "out", bpw=10.0, schemes=("NVFP4", "FP8_DYNAMIC", "BF16"), **settings)
    assert pq.verify(tmp_path / "out", source=folder).ok
    found = pq.evaluate(tmp_path / "out", source=folder, data=data, tokens=128, seq_len=16)
    assert 0 < found.kl.value < 0.5


def test_what_is_outside_of_the_language_model_is_copied_and_ignored(folder: Path, tmp_path: Path) -> None:
    source = open_model(folder)
    export(source, cycled(source, ("NVFP4", "FP8_DYNAMIC")), tmp_path / "out", sensitivity=sensitivity_of(source))
    written = {
        name: tensor for path in (tmp_path / "out").glob("*.safetensors") for name, tensor in load_file(path).items()
    }
    stored = load_file(folder / "model.safetensors")
    assert set(source.passthrough) <= written.keys()
    for name in source.passthrough:
        assert torch.equal(written[name], stored[name]), name
    ignore = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["ignore"]
    tower = TOWERS.get(folder.name, "visual")
    for name in (f"model.{tower}.blocks.0.attn.qkv", f"{tower}.blocks.0.attn.qkv"):
        assert any(re.match(entry[3:], name) for entry in ignore), name
    layer = "language_model.model.layers.0.mlp.down_proj"
    assert not any(re.match(entry[3:], layer) for entry in ignore)


def test_further_layers_are_kept_and_served(tmp_path: Path) -> None:
    folder = build("qwen3_5", tmp_path / "model", tokenizer=True)
    further = add_further_layer(folder)
    source = open_model(folder)
    assert source.outside == ("mtp", "visual")
    assert source.unknown == ()
    assert set(source.reasons.values()) == {
        "MTP layer",
        "embedding",
        "kept by the architecture entry",
        "no matrix",
        "outside of the language model: visual",
        "output head",
    }
    export(source, cycled(source, ("FP8_DYNAMIC",)), tmp_path / "out")
    pq.verify(tmp_path / "out", source=folder).raise_for_failures()
    written = load_file(next((tmp_path / "out").glob("*.safetensors")))
    assert set(further) <= written.keys()
    kept = {record.name: record.reason for record in read_manifest(tmp_path / "out" / "prismaquant.json").kept}
    assert {kept[name] for name in further} == {"MTP layer"}
    assert '"num_speculative_tokens": 1' in pq.serve_command(tmp_path / "out").text


def test_a_published_config_that_leaves_defaults_out(tmp_path: Path) -> None:
    """Gemma 3's folders say neither how many heads nor how many tokens there are."""
    folder = build("gemma3", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())["text_config"]
    kept = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "sliding_window", "layer_types")
    edit_config(folder, text_config={key: config[key] for key in kept})
    model = open_model(folder)
    assert model.text_config["vocab_size"] == 262208
    assert pq.outlook(model, fit="1GiB", context="1k").places


def test_fields_of_the_language_model_at_the_top(tmp_path: Path) -> None:
    """As Qwen2.5-VL was published."""
    folder = build("qwen2_5_vl", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config")
    (folder / "config.json").write_text(json.dumps({**text, **config}))
    assert open_model(folder).num_layers == 2
