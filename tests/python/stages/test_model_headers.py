"""Random damage to headers, index and configuration: a `ModelError` and nothing else, wherever safetensors refuses."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import deserialize

from prismaquant.errors import ModelError
from prismaquant.model import open_model
from prismaquant.model.headers import Shard, read_shard
from support.hostile import shard_of
from support.tiny_models import build

HEADER: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b.weight": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
    "c": {"dtype": "U8", "shape": [], "data_offsets": [32, 33]},
}
DATA = bytes(range(33))

quick = settings(max_examples=150, deadline=None, derandomize=True, database=None)
integers = st.sampled_from([-1, 0, 1, 2, 24, 33, 2**31, 2**62, 2**63, 2**64, 2**70]) | st.integers(-40, 40)
leaves = st.none() | st.booleans() | integers | st.floats() | st.text(max_size=5)
keys = st.text(max_size=3)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
fields = st.sampled_from(["dtype", "shape", "data_offsets", "data_offsets.0", "data_offsets.1", "", "del"])


def encode(header: bytes, data: bytes = DATA) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def judge(file: bytes, folder: Path) -> Shard | None:
    """Our reader's answer; where it accepts, the library has to accept and to see the same."""
    path = folder / "x.safetensors"
    path.write_bytes(file)
    refused: ModelError | None = None
    try:
        shard = read_shard(path)
    except ModelError as cause:
        refused = cause
    if refused:
        assert str(path) in str(refused)
        assert refused.hint
        return None
    theirs = dict(deserialize(file))
    assert {tensor.name for tensor in shard.tensors} == set(theirs)
    for tensor in shard.tensors:
        other = theirs[tensor.name]
        assert (tensor.dtype, list(tensor.shape)) == (other["dtype"], other["shape"])
        assert file[tensor.begin : tensor.end] == bytes(other["data"])
    return shard


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("headers")


def test_good_header(folder: Path) -> None:
    shard = judge(encode(json.dumps(HEADER).encode()), folder)
    assert shard is not None
    assert [tensor.name for tensor in shard.tensors] == ["a.weight", "b.weight", "c"]
    assert repr(shard).startswith("Shard(x.safetensors, 3 tensors, ")


@pytest.mark.parametrize("padding", [b" ", b" \n\t  "])
def test_padded_header(folder: Path, padding: bytes) -> None:
    assert judge(encode(json.dumps(HEADER).encode() + padding), folder) is not None


@pytest.mark.parametrize(
    ("dtype", "nbytes"),
    [
        *((name, 12) for name in ("F4",)),
        *((name, 18) for name in ("F6_E2M3", "F6_E3M2")),
        *((name, 24) for name in ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ")),
        *((name, 48) for name in ("I16", "U16", "F16", "BF16")),
        *((name, 96) for name in ("I32", "U32", "F32")),
        *((name, 192) for name in ("C64", "F64", "I64", "U64")),
    ],
)
def test_every_dtype_of_the_library(folder: Path, dtype: str, nbytes: int) -> None:
    header = {"a": {"dtype": dtype, "shape": [4, 6], "data_offsets": [0, nbytes]}}
    assert judge(encode(json.dumps(header).encode(), bytes(nbytes)), folder) is not None


def test_no_tensors(folder: Path) -> None:
    assert judge(encode(b"{}", b""), folder) is not None


@quick
@given(data=st.data())
def test_random_values_in_the_header(folder: Path, data: st.DataObject) -> None:
    header = copy.deepcopy(HEADER)
    for _ in range(data.draw(st.integers(1, 2))):
        name = data.draw(st.sampled_from(sorted(header)))
        field = data.draw(fields)
        entry = header[name]
        if field == "del":
            header.pop(name)
        elif field == "" or not isinstance(entry, dict):
            header[name] = data.draw(values)
        elif "." in field and isinstance(entry.get("data_offsets"), list) and len(entry["data_offsets"]) == 2:
            entry["data_offsets"][int(field[-1])] = data.draw(integers)
        else:
            choices = st.lists(integers, max_size=4) if field == "shape" else values
            entry[field] = data.draw(choices)
        if not header:
            break
    judge(encode(json.dumps(header).encode()), folder)


@quick
@given(cuts=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=4), st.integers(0, 4)), min_size=1, max_size=3))
@example(cuts=[(9, b"\\ud800", 1)])
def test_random_bytes_in_the_file(folder: Path, cuts: list[tuple[int, bytes, int]]) -> None:
    file = encode(json.dumps(HEADER).encode())
    for place, content, removed in cuts:
        place %= len(file) or 1
        file = file[:place] + content + file[place + removed :]
    judge(file, folder)


@quick
@given(length=st.integers(0, 120), claim=st.integers(0, 2**64 - 1))
def test_random_lengths(folder: Path, length: int, claim: int) -> None:
    file = encode(json.dumps(HEADER).encode())
    assert judge(file[:length], folder) is None
    judge(claim.to_bytes(8, "little") + file[8:], folder)


#: What a mutation puts in: the alphabet of headers, and numbers at the edges of types.
PIECES = [*(bytes([byte]) for byte in b'{}[]",:-.0123456789eE\\u \x00\xff'), b"null", b"true", b'"F4"', b'"F8_E4M3"']
PIECES += [str(number).encode() for number in (-1, 2**31, 2**32, 2**53, 2**63, 2**64, 2**64 - 8, 10**30)]


def mutated(file: bytes, draw: random.Random) -> bytes:
    """``file`` with one to three small changes, most of them in the header; now and then in its length."""
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(8, len(file)) if draw.random() < 0.9 else draw.randrange(8)
        kept = place + draw.choice((0, 1, 1, 1, 2, 5))
        if draw.random() < 0.1:  # a part of the file once more
            start = draw.randrange(8, len(file))
            piece = file[start : start + draw.randint(1, 40)]
        else:
            piece = draw.choice(PIECES)
        file = file[:place] + piece + file[kept:]
        if draw.random() < 0.5:  # the header ends where it ended
            size = int.from_bytes(file[:8], "little") + len(piece) - (kept - place)
            file = (size % 2**64).to_bytes(8, "little") + file[8:]
    return file


def test_many_mutated_headers(folder: Path) -> None:
    """As many as PRISMAQUANT_TEST_HEADERS says; it is not by luck that both answers occur."""
    generator = random.Random(0)
    file = encode(json.dumps(HEADER).encode())
    accepted = 0
    count = int(os.environ.get("PRISMAQUANT_TEST_HEADERS", 20_000))
    for _ in range(count):
        accepted += judge(mutated(file, generator), folder) is not None
    assert 0.01 * count < accepted < 0.5 * count


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("llama", tmp_path_factory.mktemp("documents") / "good", max_shard_size=100_000)


@settings(quick, max_examples=60)
@given(data=st.data())
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_random_damage_to_documents(sharded: Path, name: str, data: st.DataObject) -> None:
    folder = sharded.parent / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sharded, folder)
    document = json.loads((folder / name).read_text())
    holder = document["weight_map"] if name != "config.json" and data.draw(st.booleans()) else document
    key = data.draw(st.sampled_from(sorted(holder)) | keys)
    holder[key] = data.draw(values | st.sampled_from([shard_of(folder).name, "model.safetensors", "../x.safetensors"]))
    text = json.dumps(document).encode()
    cut = data.draw(st.sampled_from([len(text), len(text), len(text) // 2]))
    (folder / name).write_bytes(text[:cut])
    refused: ModelError | None = None
    try:
        open_model(folder)
    except ModelError as cause:
        refused = cause
    assert refused is None or str(folder) in str(refused)
