"""Files, index and manifest of a folder: every way to break them is caught by its rule."""

from __future__ import annotations

import shutil

import pytest

from prismaquant.exporting.verify import verify
from support.exported import FP8, W4A4, expect
from support.mutations import INDEX, Mutable

MANIFEST = "prismaquant.json"


def _index(change):
    return lambda folder: folder.json(INDEX, change)


def _in_map(change):
    return _index(lambda index: change(index["weight_map"]))


def _copy_shard(folder: Mutable) -> None:
    shutil.copyfile(folder.path / folder.shard(), folder.path / "old.safetensors")


FILES = {
    "no config": (lambda f: (f.path / "config.json").unlink(), "config-json", "config.json: is missing"),
    "half a config": (lambda f: f.bytes("config.json", lambda data: data[:99]), "config-json", "is not valid JSON"),
    "unknown model": (lambda f: f.config(lambda c: c.pop("model_type")), "source-config", "model_type: is missing"),
    "truncated shard": (lambda f: f.bytes(f.shard(), lambda data: data[:-1]), "safetensors", "the file is truncated"),
    "byte left over": (lambda f: f.bytes(f.shard(), lambda data: data + b"\0"), "safetensors", "has 1 bytes after"),
    "header broken": (lambda f: f.bytes(f.shard(), lambda d: d[:8] + b"x" + d[9:]), "safetensors", "does not begin"),
    "shard missing": (lambda f: (f.path / f.shard()).unlink(), "index", "is listed in 'model-00001-of.* does not have"),
    "no shard": (lambda f: [p.unlink() for p in f.path.glob("*.safetensors")], "safetensors", "no .safetensors file"),
    "no index": (lambda f: (f.path / INDEX).unlink(), "index", "json: is missing"),
    "half an index": (lambda f: f.bytes(INDEX, lambda data: data[:99]), "index", "is not valid JSON"),
    "index without map": (_index(lambda index: index.pop("weight_map")), "index", "has no weight_map"),
    "ghost": (_in_map(lambda m: m.update(ghost=m["model.norm.weight"])), "index", "ghost: is listed in"),
    "not listed": (
        _in_map(lambda m: m.pop("model.norm.weight")),
        "index",
        "model.norm.weight: is in .* not in the index",
    ),
    "wrong shard": (
        _in_map(lambda m: m.update({"model.norm.weight": min(set(m.values()) - {m["model.norm.weight"]})})),
        "index",
        "model.norm.weight: is listed in .*, which does not have it",
    ),
    "map of numbers": (_in_map(lambda m: m.update({"model.norm.weight": 7})), "index", "is listed in 7"),
    "wrong total": (
        _index(lambda index: index["metadata"].update(total_size=1)),
        "index",
        "total_size is 1, the tensors",
    ),
    "stale shard": (_copy_shard, "stale-shard", "old.safetensors: is not in the index"),
    "tensor twice": (_copy_shard, "index", "is in 2 shards: model-00001"),
    "tokenizer missing": (lambda f: (f.path / "tokenizer.json").unlink(), "other-files", "tokenizer.json: is missing"),
    "tokenizer changed": (
        lambda f: f.bytes("tokenizer_config.json", lambda data: data + b" "),
        "other-files",
        "tokenizer_config.json: differs",
    ),
    "tied by mistake": (
        lambda f: f.config(lambda c: c.update(tie_word_embeddings=True)),
        "source-config",
        "tie_word_embeddings: is True, the source has False",
    ),
    "key added": (
        lambda f: f.config(lambda c: c.update(rope_theta=5.0)),
        "source-config",
        "rope_theta: is 5.0, the source",
    ),
    "half a manifest": (lambda f: f.bytes(MANIFEST, lambda data: data[:99]), "manifest", "is not a JSON document"),
    "other plan": (
        lambda f: f.json(MANIFEST, lambda m: m["plan"]["units"][3].update(scheme="NVFP4A16")),
        "manifest",
        f"{FP8}: is NVFP4A16 in the plan and FP8_DYNAMIC in the records, FP8_DYNAMIC by the configuration",
    ),
    "record missing": (lambda f: f.json(MANIFEST, lambda m: m["linears"].pop()), "manifest", "and None in the records"),
    "record of a ghost": (
        lambda f: f.json(MANIFEST, lambda m: m["linears"].append({**m["linears"][0], "name": "ghost"})),
        "manifest",
        "ghost: is no Linear of the model",
    ),
    "record bytes": (
        lambda f: f.json(MANIFEST, lambda m: m["linears"][0].update(bytes=1)),
        "manifest",
        "has 1 bytes, its",
    ),
    "total bytes": (lambda f: f.json(MANIFEST, lambda m: m.update(tensor_bytes=1)), "manifest", "tensor_bytes: is 1"),
    "other source": (
        lambda f: f.json(MANIFEST, lambda m: m["plan"].update(model="sha256:0")),
        "manifest",
        "plan.model",
    ),
    "other error": (
        lambda f: f.json(MANIFEST, lambda m: m["linears"][0].update(squared_error=1.0)),
        "squared-error",
        f"{W4A4}: squared error .*, the manifest has 1.0",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_broken_files_are_caught(broken, mixed_source, case):
    change, rule, text = FILES[case]
    change(broken)
    expect(verify(broken.path, source=mixed_source), rule, text)


@pytest.mark.parametrize("name", ["nothing", "config.json", "folder"])
def test_what_is_no_folder_of_a_model_fails_without_a_traceback(mixed, mixed_source, tmp_path, name):
    path = {"nothing": tmp_path / "nothing", "config.json": mixed / "config.json", "folder": tmp_path}[name]
    report = verify(path, source=mixed_source)
    assert not report.ok
    assert not report.source_compared
    assert report.linears == ()
