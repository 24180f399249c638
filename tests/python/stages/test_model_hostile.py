"""Every broken folder is refused as a `ModelError` that names the place and says what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from prismaquant.errors import ModelError, NumericError
from prismaquant.model import open_model
from support import hostile
from support.tiny_models import build

Q = "model.layers.0.self_attn.q_proj.weight"
K = "model.layers.0.self_attn.k_proj.weight"
O = "model.layers.1.self_attn.o_proj.weight"  # noqa: E741
NORM = "model.norm.weight"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("llama", tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def good_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("llama", tmp_path_factory.mktemp("good_shards"), max_shard_size=60_000)


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


@pytest.fixture
def shards(good_shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good_shards, tmp_path / "model"))


def refusal(folder: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        open_model(folder)
    assert caught.value.hint, "says nothing about what to do"
    assert str(folder) in str(caught.value.where), "does not say where"
    return caught.value


SINGLE_FILE: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "shard is a folder": (hostile.shard_is_folder, (SINGLE, "no file")),
    "dangling link": (hostile.dangling_shard, (SINGLE, "is missing")),
    "truncated data": (
        hostile.truncated_data,
        (SINGLE, "tensor '", "the file is truncated: it ends at byte", "download the file again"),
    ),
    "truncated header": (hostile.truncated_header, (SINGLE, "truncated: its header ends at byte", "at byte 200")),
    "empty file": (hostile.empty_shard, (SINGLE, "0 bytes, at least 8 needed")),
    "trailing bytes": (hostile.trailing_bytes, (SINGLE, "has 3 bytes after its last tensor")),
    "giant header": (hostile.giant_header, (SINGLE, "header of 1000000000000 bytes", "100000000 allowed")),
    "git lfs pointer": (hostile.git_lfs_pointer, (SINGLE, "Git LFS pointer", "git lfs pull")),
    "not utf-8": (hostile.header_not_utf8, (SINGLE, "header is not UTF-8", "byte 2")),
    "not json": (hostile.header_not_json, (SINGLE, "header is not valid JSON")),
    "not an object": (hostile.header_not_object, (SINGLE, "does not begin with '{'")),
    "nested deeply": (hostile.header_nested_deeply, (SINGLE, "nested too deeply")),
    "metadata": (hostile.metadata_not_text, (SINGLE, "__metadata__ is not an object of strings")),
    "duplicate": (hostile.duplicate_tensor, (SINGLE, f"key '{NORM}' occurs 2 times")),
    "escape sequence in a name": (
        lambda folder: hostile.set_tensor(folder, "\x1b[2J", "U8", [1], b"x"),
        (SINGLE, r"tensor '\x1b[2J'", "unprintable"),
    ),
    "half a surrogate in a name": (
        lambda folder: hostile.set_tensor(folder, "\ud800", "U8", [1], b"x"),
        (SINGLE, r"tensor '\ud800'", "unprintable"),
    ),
    "unknown dtype": (partial(hostile.edit_entry, name=NORM, dtype="F7"), (NORM, "dtype 'F7'", "known:", "BF16")),
    "dtype not text": (partial(hostile.edit_entry, name=NORM, dtype=7), (NORM, "dtype 7")),
    "negative size": (partial(hostile.edit_entry, name=NORM, shape=[-64]), (NORM, "shape [-64]")),
    "true is no size": (partial(hostile.edit_entry, name=NORM, shape=[64, True]), (NORM, "shape [64, True]")),
    "float size": (partial(hostile.edit_entry, name=NORM, shape=[64.0]), (NORM, "shape [64.0]")),
    "overflow": (
        partial(hostile.edit_entry, name=NORM, shape=[2**40, 2**40]),
        (NORM, "more elements than 64 bits can count"),
    ),
    "size and shape differ": (
        partial(hostile.edit_entry, name=NORM, shape=[65]),
        (NORM, "BF16 [65] takes 130 bytes", "hold 128"),
    ),
    "half a byte": (partial(hostile.edit_entry, name=NORM, dtype="F4", shape=[3]), (NORM, "no whole number of bytes")),
    "offsets reversed": (partial(hostile.edit_entry, name=NORM, data_offsets=[128, 0]), (NORM, "[128, 0]")),
    "offsets beyond the file": (
        partial(hostile.edit_entry, name=NORM, data_offsets=[2**60, 2**60 + 128]),
        (NORM, "belong to no tensor"),
    ),
    "overlap": (partial(hostile.edit_entry, name=NORM, data_offsets=[0, 128]), ("they overlap",)),
    "unknown field": (partial(hostile.edit_entry, name=NORM, sparse=True), (NORM, "exactly the fields")),
    "pickles": (
        hostile.pickles_only,
        ("consolidated.00.pth, pytorch_model.bin", "run any code when opened", "revision", "convert.py"),
    ),
    "other name": (hostile.single_file_with_other_name, ("weights.safetensors", f"name it {SINGLE}")),
    "no weights": (hostile.no_weights, ("has no weights", SINGLE)),
    "no config": (hostile.no_config, ("config.json", "is missing", "Hugging Face")),
    "config is html": (hostile.config_not_json, ("config.json", "not valid JSON")),
    "layers missing": (
        partial(hostile.edit_config, num_hidden_layers=None),
        ("config.json", "num_hidden_layers is None"),
    ),
    "layers true": (partial(hostile.edit_config, num_hidden_layers=True), ("num_hidden_layers is True",)),
    "too many layers": (
        partial(hostile.edit_config, num_hidden_layers=3),
        (
            "'model.layers.2.self_attn.q_proj.weight'",
            "no tensor begins with 'model.layers.2.'",
            "num_hidden_layers = 3",
        ),
    ),
    "quantized": (
        partial(hostile.edit_config, quantization_config={"quant_method": "fp8"}),
        ("config.json", "quantized already", "'fp8'", "start from"),
    ),
    "quantized inside": (
        partial(hostile.edit_config, text_config={"quantization_config": {"quant_method": "gptq"}}),
        ("quantized already", "'gptq'"),
    ),
    "unknown class": (
        partial(hostile.edit_config, architectures=["LlamaForSequenceClassification"]),
        ("LlamaForSequenceClassification", "LlamaForCausalLM", "llama.toml"),
    ),
    "unknown architecture": (
        partial(hostile.edit_config, model_type="lamb", architectures=["LambForCausalLM"]),
        (
            "'lamb'",
            "LambForCausalLM",
            "known: deepseek_v3, gemma3, gemma3_text, gpt_oss, llama, mistral, mistral3, mixtral, qwen2, ",
            "prismaquant/model/architectures/lamb.toml",
            "model_type, classes, layers, source and units",
        ),
    ),
    "model type is a path": (
        partial(hostile.edit_config, model_type="../llama"),
        ("'../llama'", "architectures/<model_type>.toml"),
    ),
    "no model type": (partial(hostile.edit_config, model_type=None), ("model_type None",)),
    "linear is missing": (partial(hostile.drop_tensor, name=Q), (f"no tensor '{Q}'", "'llama'", "layer 0 has")),
    "linear is a vector": (
        partial(hostile.set_tensor, name=Q, dtype="BF16", shape=[4096], content=bytes(8192)),
        (SINGLE, Q, "shape [4096]", "[rows, columns]"),
    ),
    "linear is empty": (partial(hostile.set_tensor, name=Q, dtype="BF16", shape=[0, 64], content=b""), (Q, "[0, 64]")),
    "linear is fp8": (
        partial(hostile.set_tensor, name=O, dtype="F8_E4M3", shape=[64, 64], content=bytes(4096)),
        (SINGLE, O, "F8_E4M3", "BF16, F16, F32", "quantized already"),
    ),
    "siblings differ": (
        partial(hostile.set_tensor, name=K, dtype="BF16", shape=[64, 32], content=bytes(4096)),
        ("model.layers.0.self_attn.qkv_proj", "different numbers of columns"),
    ),
}


@pytest.mark.parametrize("name", SINGLE_FILE)
def test_broken_folder_is_refused(folder: Path, name: str) -> None:
    damage, fragments = SINGLE_FILE[name]
    open_model(folder)
    damage(folder)
    message = str(refusal(folder))
    for fragment in fragments:
        assert fragment in message


def test_hole_between_tensors_is_refused(folder: Path) -> None:
    header = hostile.read_header(hostile.shard_of(folder))
    begin, end = header[NORM]["data_offsets"]
    hostile.edit_entry(folder, NORM, dtype="U8", shape=[end - begin - 1], data_offsets=[begin + 1, end])
    assert f"'{NORM}': bytes " in str(refusal(folder))


def test_weights_that_the_entry_does_not_know_are_named_when_one_is_missing(folder: Path) -> None:
    fused = "model.layers.0.self_attn.qkv_proj.weight"
    hostile.edit_shard(folder, lambda tensors: tensors.update({fused: tensors.pop(Q)}))
    assert "does not know: self_attn.qkv_proj.weight" in str(refusal(folder))


SHARDED: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "missing shard": (hostile.missing_shard, ("model-00001-of-0000", "is missing")),
    "truncated shard": (hostile.truncated_data, ("model-00001-of-0000", "the file is truncated")),
    "no weight map": (hostile.index_without_map, (INDEX, "no weight_map")),
    "ghost tensor": (
        lambda folder: hostile.edit_index(folder, ghost=hostile.shard_of(folder).name),
        (INDEX, "'ghost' in model-00001-of-0000", "does not have it"),
    ),
    "tensor in another shard": (
        lambda folder: hostile.edit_index(folder, **{NORM: hostile.shard_of(folder, Q).name}),
        (INDEX, f"'{NORM}' in model-0000", "does not have it"),
    ),
    "tensor in two shards": (hostile.tensor_in_two_shards, ("is in model-00001", "and in model-00002")),
    "single file beside index": (hostile.single_file_beside_index, (SINGLE, "an index of other shards")),
    "index lists a pickle": (lambda folder: hostile.edit_index(folder, a="weights.bin"), (INDEX, "'weights.bin'")),
    "index entry is no text": (lambda folder: hostile.edit_index(folder, a=7), (INDEX, "in 7, which")),
}


@pytest.mark.parametrize("name", SHARDED)
def test_broken_shards_are_refused(shards: Path, name: str) -> None:
    damage, fragments = SHARDED[name]
    open_model(shards)
    damage(shards)
    message = str(refusal(shards))
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "..\\model.safetensors",
        "C:\\model.safetensors",
        "./model.safetensors",
        "a\0.safetensors",
        "",
        ".",
    ],
)
def test_index_cannot_leave_the_folder(shards: Path, name: str) -> None:
    shutil.copyfile(hostile.shard_of(shards), shards.parent / SINGLE)  # so that only the check stands in the way
    hostile.edit_index(shards, outside=name)
    message = str(refusal(shards))
    assert repr(name) in message
    assert "plain name" in message


@pytest.mark.parametrize(
    ("path", "fragment"),
    [
        ("./nothing/at/all", "does not exist; give a folder"),
        ("config.json", "is a file; give the folder"),
        ("org/model-7b", "hf download org/model-7b --local-dir model-7b"),
    ],
)
def test_path_that_is_no_folder(folder: Path, path: str, fragment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(ModelError) as caught:
        open_model(path)
    assert fragment in str(caught.value)


def test_unreadable_folder_is_a_model_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(ModelError, match="Permission denied"):
        open_model(folder)


def test_nan_and_infinity_are_counted(folder: Path) -> None:
    hostile.poison_weight(folder, O, [float("nan"), float("inf"), float("nan"), float("-inf"), float("nan")])
    model = open_model(folder)
    bad = next(linear for linear in model.linears() if linear.weight.name == O)
    with pytest.raises(NumericError) as caught:
        model.read_weight(bad)
    message = str(caught.value)
    assert f"{SINGLE}: tensor '{O}'" in message
    assert "3 NaN and 2 infinite values of 4096" in message
    for linear in model.linears():
        if linear is not bad:
            model.read_weight(linear)


def test_file_that_changed_after_opening(folder: Path) -> None:
    model = open_model(folder)
    last = max(model.tensors.values(), key=lambda tensor: tensor.end)
    hostile.truncated_data(folder)
    with pytest.raises(ModelError, match="changed after it was opened") as caught:
        model.read_bytes(last.name)
    assert last.name in str(caught.value)
    hostile.no_weights(folder)
    with pytest.raises(ModelError, match="cannot be read"):
        model.read_bytes(last.name)


def test_unknown_tensor_name(folder: Path) -> None:
    with pytest.raises(ModelError, match="'nothing'"):
        open_model(folder).read_bytes("nothing")
