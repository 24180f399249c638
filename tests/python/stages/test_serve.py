"""The command that serves a folder: as it was planned for, with what is known to go wrong."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest

import prismaquant as pq
from prismaquant.errors import ArgumentError, ModelError
from prismaquant.files.plan import CacheShare, Footprint
from support.plans import cycled
from support.tiny_models import build


def _written(folder, schemes, footprint=None, **config):
    source = pq.open(build("llama", folder / "source", **config))
    pq.export(source, replace(cycled(source, schemes), footprint=footprint), folder / "out")
    return folder / "out"


def test_a_folder_of_no_device_leaves_everything_to_the_engine(tmp_path):
    out = _written(tmp_path, ["FP8_DYNAMIC"])
    found = pq.serve_command(out)
    assert found.arguments == ("vllm", "serve", str(out))
    assert shlex.split(found.text) == list(found.arguments)
    assert any("that this vLLM starts with it" in note for note in found.notes)
    assert any("was not made for the memory of a device" in note for note in found.notes)


def test_what_it_was_planned_for_is_in_the_command(tmp_path):
    cache = (CacheShare("full", 2, 1000),)
    out = _written(tmp_path, ["FP8_DYNAMIC"], Footprint(10, 5, 96, 2, "fp8", cache, 7, 2, memory=10**9, left=5))
    found = pq.serve_command(out)
    more = ["--max-model-len", "96", "--kv-cache-dtype", "fp8", "--tensor-parallel-size", "2"]
    assert list(found.arguments[3:]) == more
    assert any("the folder has no scales for it, vLLM takes 1; its loss is not measured" in x for x in found.notes)
    assert list(pq.serve_command(out, context="1k", kv="auto", tensor_parallel=1).arguments[3:]) == [
        "--max-model-len",
        "1024",
    ]


def test_a_context_that_the_model_was_not_made_for_is_told(tmp_path):
    out = _written(tmp_path, ["FP8_DYNAMIC"], max_position_embeddings=128)
    assert not any("made for up to" in note for note in pq.serve_command(out, context=128).notes)
    assert "made for up to 128 tokens: vLLM refuses a context of 129" in " ".join(
        pq.serve_command(out, context=129).notes
    )


def test_a_folder_without_a_plan_is_not_said_to_have_one(tmp_path):
    source = build("llama", tmp_path / "source")
    assert not any("the plan was" in note for note in pq.serve_command(source).notes)


def test_known_faults_are_told(tmp_path):
    out = _written(tmp_path, ["MXFP8A16", "BF16"])
    assert any(note.startswith("vLLM up to 0.33 quantizes the activations") for note in pq.serve_command(out).notes)


def test_a_head_for_further_tokens_and_towers_are_seen(tmp_path):
    out = _written(tmp_path, ["FP8_DYNAMIC"])
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "num_nextn_predict_layers": 1, "vision_config": {}}))
    assert json.loads(pq.serve_command(out).arguments[-1]) == {"method": "mtp", "num_speculative_tokens": 1}
    assert json.loads(pq.serve_command(out, text_only=True).arguments[-1])["image"] == 0


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        pq.serve_command(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"config\.json"):
        pq.serve_command(tmp_path / "empty")
    out = _written(tmp_path, ["FP8_DYNAMIC"])
    with pytest.raises(ArgumentError, match="unknown kv dtype"):
        pq.serve_command(out, kv="int3")
