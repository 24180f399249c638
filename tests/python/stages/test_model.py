"""A good folder: what `open_model` finds in it, and that every byte is the one on the disk."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors import safe_open

from prismaquant.errors import ModelError
from prismaquant.model import Linear, Model, open_model
from support import hostile
from support.tiny_models import build

BUNDLED = Path(__file__).parents[3] / "examples" / "models" / "tiny-llama"
OTHERS = {path.name for path in BUNDLED.iterdir()} - {"config.json", "model.safetensors"}
Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def bundled() -> Model:
    return open_model(BUNDLED)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("qwen2", tmp_path_factory.mktemp("sharded"), max_shard_size=60_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLED, tmp_path / "model"))


def linear(model: Model) -> Linear:
    return next(linear for linear in model.linears() if linear.weight.name == Q)


def test_bundled_model(bundled: Model) -> None:
    assert repr(bundled) == "Model(llama, 6 layers, 24 units, 6.52M parameters, 12.4 MiB)"
    assert [unit.name for unit in bundled.units[:5]] == [
        "model.layers.0.self_attn.qkv_proj",
        "model.layers.0.self_attn.o_proj",
        "model.layers.0.mlp.gate_up_proj",
        "model.layers.0.mlp.down_proj",
        "model.layers.1.self_attn.qkv_proj",
    ]
    assert [unit.layer for unit in bundled.units] == sorted(list(range(6)) * 4)
    first = bundled.units[0]
    assert [one.name for one in first.linears] == [f"model.layers.0.self_attn.{kind}_proj" for kind in "qkv"]
    assert [(one.rows, one.columns) for one in first.linears] == [(256, 256), (128, 256), (128, 256)]
    assert first.parameters == (256 + 128 + 128) * 256
    assert repr(first) == "Unit(model.layers.0.self_attn.qkv_proj, 256x256 128x256 128x256)"
    assert repr(first.linears[1]) == "Linear(model.layers.0.self_attn.k_proj, 128 x 256, BF16)"
    assert bundled.unlisted == ()


@pytest.mark.parametrize("which", ["bundled", "sharded"])
def test_every_tensor_has_one_role(which: str, sharded: Path) -> None:
    model = open_model({"bundled": BUNDLED, "sharded": sharded}[which])
    roles = [one.weight.name for one in model.linears()] + list(model.passthrough)
    assert len(roles) == len(set(roles))
    assert sorted(roles) == list(model.tensors)
    assert list(model.passthrough) == sorted(model.passthrough)


@pytest.mark.parametrize("which", ["bundled", "sharded"])
def test_bytes_agree_with_the_safetensors_library(which: str, sharded: Path) -> None:
    folder = {"bundled": BUNDLED, "sharded": sharded}[which]
    model = open_model(folder)
    seen, parameters = set(), 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                tensor, info = file.get_tensor(name), model.tensors[name]
                assert (info.file, info.dtype, info.shape) == (path.name, "BF16", tuple(tensor.shape))
                assert np.array_equal(model.read_bytes(name), tensor.flatten().view(torch.uint8).numpy())
                parameters += tensor.numel()
                seen.add(name)
    assert seen == set(model.tensors)
    assert (model.parameters, model.nbytes) == (parameters, 2 * parameters)


def test_weight_from_bfloat16_is_exact(folder: Path) -> None:
    every = np.arange(2**16, dtype=np.uint16)
    every[~np.isfinite(every.view(ml_dtypes.bfloat16).astype(np.float32))] = 0
    hostile.set_tensor(folder, Q, "BF16", [256, 256], every.tobytes())
    model = open_model(folder)
    weight = model.read_weight(linear(model))
    assert (weight.dtype, weight.shape) == (np.float32, (256, 256))
    expected = every.view(ml_dtypes.bfloat16).astype(np.float32)
    assert weight.tobytes() == expected.tobytes()  # signed zeros and subnormals included


def test_weight_from_float16_and_float32_is_exact(folder: Path) -> None:
    half = np.arange(2**16, dtype=np.uint16)
    half[~np.isfinite(half.view(np.float16))] = 0
    hostile.set_tensor(folder, Q, "F16", [256, 256], half.tobytes())
    model = open_model(folder)
    assert model.read_weight(linear(model)).tobytes() == half.view(np.float16).astype(np.float32).tobytes()

    single = np.random.default_rng(0).standard_normal(2**16).astype(np.float32) * np.float32(1e-42)
    hostile.set_tensor(folder, Q, "F32", [256, 256], single.tobytes())
    model = open_model(folder)
    assert model.read_weight(linear(model)).tobytes() == single.tobytes()


def test_weights_at_odd_offsets(folder: Path) -> None:
    """Nothing in the format aligns a tensor: one byte in front shifts all that follow."""

    def shift(tensors: hostile.Tensors) -> None:
        rest = dict(tensors)
        tensors.clear()
        tensors.update({"a": ("U8", [1], b"x"), **rest})

    before = open_model(BUNDLED)
    hostile.edit_shard(folder, shift)
    hostile.pad_header(folder, 8)
    assert open_model(folder).tensors[Q].begin % 2 == 1
    after = open_model(folder)
    assert np.array_equal(after.read_weight(linear(after)), before.read_weight(linear(before)))


def test_odd_tensors_pass_through(folder: Path) -> None:
    hostile.set_tensor(folder, "scalar", "I64", [], (7).to_bytes(8, "little"))
    hostile.set_tensor(folder, "empty", "F32", [0, 3], b"")
    hostile.set_tensor(folder, "nibbles", "F4", [2, 2], b"\x12\x34")
    model = open_model(folder)
    assert {"scalar", "empty", "nibbles"} < set(model.passthrough)
    assert model.tensors["scalar"].parameters == 1
    assert model.tensors["empty"].parameters == 0
    assert model.read_bytes("empty").size == 0
    assert model.read_bytes("nibbles").tobytes() == b"\x12\x34"


def test_matrices_that_the_entry_does_not_know_are_listed(folder: Path) -> None:
    new = "model.layers.3.self_attn.gate.weight"
    hostile.set_tensor(folder, new, "BF16", [4, 256], bytes(2048))
    hostile.set_tensor(folder, "model.layers.3.self_attn.q_proj.bias", "BF16", [256], bytes(512))
    hostile.set_tensor(folder, "adapter.weight", "BF16", [4, 256], bytes(2048))
    model = open_model(folder)
    assert model.unlisted == (new,)
    assert {new, "adapter.weight", "model.layers.3.self_attn.q_proj.bias"} < set(model.passthrough)


def test_tied_embeddings(tmp_path: Path) -> None:
    model = open_model(build("llama", tmp_path, tie_word_embeddings=True))
    assert "lm_head.weight" not in model.tensors
    assert "model.embed_tokens.weight" in model.passthrough


def test_shards_beside_the_index_are_no_part_of_the_model(sharded: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sharded, tmp_path / "model"))
    shutil.copyfile(hostile.shard_of(folder), folder / "consolidated.safetensors")
    (folder / "old-00001-of-00001.safetensors").write_bytes(b"broken")
    assert open_model(folder).tensors == open_model(sharded).tensors


def test_tensor_that_only_its_shard_lists_is_kept(sharded: Path, tmp_path: Path) -> None:
    """Engines load every tensor of a shard that the index names."""
    folder = Path(shutil.copytree(sharded, tmp_path / "model"))
    hostile.edit_index(folder, **{"model.norm.weight": None})
    assert "model.norm.weight" in open_model(folder).passthrough


def test_fingerprint(folder: Path) -> None:
    original = open_model(BUNDLED).fingerprint
    assert re.fullmatch("sha256:[0-9a-f]{64}", original)
    assert open_model(folder).fingerprint == original, "depends on the place"
    (folder / "README.md").write_text("a model")
    assert open_model(folder).fingerprint == original, "depends on other files"

    hostile.edit_config(folder, rope_theta=5000.0)
    config = open_model(folder).fingerprint
    shutil.copyfile(BUNDLED / "config.json", folder / "config.json")
    hostile.set_tensor(folder, "extra", "U8", [1], b"x")
    header = open_model(folder).fingerprint
    shutil.copyfile(BUNDLED / "model.safetensors", folder / "model.safetensors")
    assert open_model(folder).fingerprint == original

    # A fine-tune has the same headers and other weights.
    values = np.random.default_rng(0).integers(0, 2**14, 2**16, dtype=np.uint16)
    hostile.edit_shard(folder, lambda tensors: tensors.update({Q: ("BF16", [256, 256], values.tobytes())}))
    hostile.set_header(folder / "model.safetensors", header_bytes(BUNDLED / "model.safetensors"))
    tuned = open_model(folder)
    assert tuned.tensors == open_model(BUNDLED).tensors
    assert len({original, config, header, tuned.fingerprint}) == 4


def header_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    return data[8 : 8 + int.from_bytes(data[:8], "little")]


def test_other_files(folder: Path) -> None:
    kept = {"chat_template.jinja", "LICENSE", "modeling_x.py", "tokenizer.model", "vocab.json", "merges.txt"}
    dropped = {
        *("old.safetensors", "pytorch_model.bin", "pytorch_model.bin.index.json", "model.safetensors.index.json"),
        *("consolidated.00.pth", "x.gguf", "hf_quant_config.json", "prismaquant.json", ".gitattributes", "x.msgpack"),
    }
    for name in kept | dropped:
        (folder / name).write_text("{}")
    for name in ("original/params.json", "additional_chat_templates/tool_use.jinja", "onnx/model.onnx"):
        (folder / name).parent.mkdir()
        (folder / name).write_text("{}")
    hostile.edit_json(folder / "model.safetensors.index.json", lambda index: index.update(weight_map=whole(folder)))
    model = open_model(folder)
    names = {str(path.relative_to(model.path)) for path in model.other_files()}
    assert names == kept | OTHERS | {"additional_chat_templates/tool_use.jinja"}
    assert list(model.other_files()) == sorted(model.other_files())


def whole(folder: Path) -> dict[str, str]:
    header = hostile.read_header(folder / "model.safetensors")
    return {name: "model.safetensors" for name in header if name != "__metadata__"}


def test_links_as_in_a_download_cache(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "snapshot"
    cache.mkdir()
    for path in folder.iterdir():
        (cache / path.name).symlink_to(path)
    assert open_model(cache).fingerprint == open_model(BUNDLED).fingerprint
    assert {path.name for path in open_model(cache).other_files()} == OTHERS
    (cache / "vocab.json").symlink_to(tmp_path / "blobs" / "gone")
    with pytest.raises(ModelError, match=r"vocab\.json: is a link to a file that is not there"):
        open_model(cache).other_files()


def test_relative_path_survives_a_change_of_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    model = open_model("model")
    monkeypatch.chdir("/")
    assert model.path == folder
    model.read_weight(linear(model))


def test_opening_reads_headers_only_and_imports_no_torch() -> None:
    code = f"""
import sys, json
import numpy
numpy.fromfile = None
from prismaquant.model import open_model
model = open_model({str(BUNDLED)!r})
print(json.dumps([len(model.units), sorted({{"torch", "transformers", "safetensors"}} & set(sys.modules))]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[0] == 24
    assert not {"torch", "transformers"} & set(json.loads(done.stdout)[1])
