"""The shard writer, judged by the safetensors library."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors
from safetensors import deserialize

from prismaquant.errors import ModelError, ShapeError
from prismaquant.exporting.copy import copy_tensor
from prismaquant.exporting.shards import Entry, Shard, ShardWriter, header, index, lay_out
from prismaquant.model import open_model
from prismaquant.types import Array
from support.tiny_models import build

ITEM_BYTES = {"U8": 1, "F8_E4M3": 1, "BOOL": 1, "BF16": 2, "F16": 2, "F32": 4, "I64": 8}


def entry(name: str, dtype: str, *shape: int) -> Entry:
    sizes = tuple(map(int, shape))
    return Entry(name, dtype, sizes, math.prod(sizes) * ITEM_BYTES[dtype])


def content(entry: Entry) -> Array:
    """Bytes that no other tensor has."""
    return np.random.default_rng(list(entry.name.encode())).integers(0, 256, entry.nbytes, dtype=np.uint8)


def write(folder: Path, shards: tuple[Shard, ...], *, backwards: bool = False) -> None:
    folder.mkdir()
    entries = [entry for shard in shards for entry in shard.entries]
    with ShardWriter(folder, shards) as writer:
        for item in reversed(entries) if backwards else entries:
            writer.write(item.name, content(item))


@pytest.fixture
def random_entries() -> list[Entry]:
    rng = np.random.default_rng(0)
    dtypes = list(ITEM_BYTES)
    entries = [
        entry(f"layers.{layer}.m{module}.{part}", str(rng.choice(dtypes)), *rng.integers(1, 9, rng.integers(1, 4)))
        for layer in range(12)
        for module in range(3)
        for part in ("weight", "weight_scale", "bias")
    ]
    odd = [entry("empty.weight", "F32", 3, 0), entry("scalar", "I64"), entry("ünïcode.weight", "BF16", 3)]
    return entries + odd


@pytest.mark.parametrize("shard_size", [1, 300, 10**9])
def test_library_reads_back_every_tensor(tmp_path: Path, random_entries: list[Entry], shard_size: int) -> None:
    shards = lay_out(random_entries, shard_size)
    write(tmp_path / "out", shards)
    seen = {}
    for shard in shards:
        data = (tmp_path / "out" / shard.file).read_bytes()
        assert len(data) == shard.nbytes
        for name, tensor in safetensors.deserialize(data):
            seen[name] = (tensor["dtype"], tuple(tensor["shape"]), bytes(tensor["data"]))
    assert seen == {item.name: (item.dtype, item.shape, content(item).tobytes()) for item in random_entries}


def test_tensors_start_at_multiples_of_their_item_size(random_entries: list[Entry]) -> None:
    for shard in lay_out(random_entries, 300):
        start = header(shard.entries)
        assert len(start) % 8 == 0
        document = json.loads(start[8:])
        assert document.pop("__metadata__") == {"format": "pt"}
        end = 0
        for place, item in zip(document.values(), shard.entries, strict=True):
            begin = place["data_offsets"][0]
            assert begin == end, "a hole"
            assert begin % ITEM_BYTES[item.dtype] == 0 or not item.nbytes
            end = place["data_offsets"][1]
        sizes = [ITEM_BYTES[item.dtype] for item in shard.entries if item.nbytes]
        assert sizes == sorted(sizes, reverse=True)


def test_same_bytes_whatever_the_order_of_writing(tmp_path: Path, random_entries: list[Entry]) -> None:
    shards = lay_out(random_entries, 300)
    write(tmp_path / "a", shards)
    write(tmp_path / "b", lay_out(random_entries[::-1], 300), backwards=True)
    assert len(shards) > 3
    for shard in shards:
        assert (tmp_path / "a" / shard.file).read_bytes() == (tmp_path / "b" / shard.file).read_bytes()


def test_files_are_filled_in_the_order_of_the_layers_and_keep_modules_whole(random_entries: list[Entry]) -> None:
    shards = lay_out(random_entries, 300)
    places: dict[str, set[str]] = {}
    for shard in shards:
        modules = {item.module for item in shard.entries}
        assert sum(item.nbytes for item in shard.entries) <= 300 or len(modules) == 1
        for module in modules:
            places.setdefault(module, set()).add(shard.file)
    assert all(len(files) == 1 for files in places.values())
    files = [min(places[f"layers.{layer}.m0"]) for layer in range(12)]
    assert files == sorted(files), "layer 10 must not come before layer 2"
    assert [shard.file for shard in shards][-1] == f"model-{len(shards):05d}-of-{len(shards):05d}.safetensors"


def test_index_lists_every_tensor_once(random_entries: list[Entry]) -> None:
    shards = lay_out(random_entries, 300)
    document = json.loads(index(shards))
    assert document["metadata"] == {"total_size": sum(item.nbytes for item in random_entries)}
    assert document["weight_map"] == {item.name: shard.file for shard in shards for item in shard.entries}
    assert list(document["weight_map"]) == sorted(document["weight_map"])


def test_wrong_size_unknown_name_and_second_writing_are_errors(tmp_path: Path) -> None:
    shards = lay_out([entry("a.weight", "F32", 2)], 100)
    with (
        pytest.raises(ShapeError, match=r"a\.weight: has 4 bytes, the header says 8"),
        ShardWriter(tmp_path, shards) as writer,
    ):
        writer.write("a.weight", np.zeros(1, np.float32))
    (tmp_path / shards[0].file).unlink()
    with ShardWriter(tmp_path, shards) as writer:
        writer.write("a.weight", np.zeros(2, np.float32))
        for name in ("a.weight", "b.weight"):
            with pytest.raises(ShapeError, match="not in the layout, or was written before"):
                writer.write(name, np.zeros(2, np.float32))


def test_a_forgotten_tensor_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ShapeError, match=r"b\.weight: 1 tensors were not written"),
        ShardWriter(tmp_path, lay_out([entry("a.weight", "U8", 2), entry("b.weight", "U8", 2)], 100)) as writer,
    ):
        writer.write("a.weight", np.zeros(2, np.uint8))


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("shard_size", [1, 300, 10**9])
def test_sums_are_those_of_the_files(
    tmp_path: Path, random_entries: list[Entry], shard_size: int, backwards: bool
) -> None:
    shards = lay_out(random_entries, shard_size)
    entries = [entry for shard in shards for entry in shard.entries]
    with pytest.raises(ShapeError, match="were not written"), ShardWriter(tmp_path, shards) as writer:
        writer.write(entries[-1].name, content(entries[-1]))
    assert not writer.sums
    with ShardWriter(tmp_path, shards) as writer:
        writer.skip(entries.pop().name)
        for item in reversed(entries) if backwards else entries:
            writer.write(item.name, content(item))
    files = {shard.file: (tmp_path / shard.file).read_bytes() for shard in shards}
    assert writer.sums == {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}


def test_a_file_cut_while_it_is_written_has_no_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "preadv", lambda *_: 0)
    with (
        pytest.raises(OSError, match="was cut"),
        ShardWriter(tmp_path, lay_out([entry("a.weight", "U8", 4)], 10**9)) as writer,
    ):
        writer.write("a.weight", np.zeros(4, np.uint8))


def test_short_writes_of_the_system_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call takes at most 2 GiB on Linux; here, 5 bytes."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: pwrite(file, data[:5], offset))
    shards = lay_out([entry("a.weight", "U8", 1234)], 10**9)
    write(tmp_path / "out", shards)
    ((_, tensor),) = safetensors.deserialize((tmp_path / "out" / shards[0].file).read_bytes())
    assert bytes(tensor["data"]) == content(shards[0].entries[0]).tobytes()


def test_memory_holds_one_tensor(tmp_path: Path) -> None:
    shards = lay_out([entry(f"m{number}.weight", "U8", 2**20) for number in range(16)], 2**22)
    tracemalloc.start()
    try:
        write(tmp_path / "out", shards)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(shard.nbytes for shard in shards) > 16 * 2**20
    assert peak < 2.5 * 2**20


@pytest.mark.parametrize("errno", [None, 18, 22, 38, 95])
def test_a_tensor_copied_by_the_system_or_read_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, errno: int | None
) -> None:
    """18 is EXDEV, 22 EINVAL, 38 ENOSYS, 95 EOPNOTSUPP."""
    model = open_model(build("llama", tmp_path / "model"))
    if errno is not None:

        def refused(*_: object) -> int:
            raise OSError(errno, "not here")

        monkeypatch.setattr(os, "copy_file_range", refused)
    entries = [Entry(name, tensor.dtype, tensor.shape, tensor.nbytes) for name, tensor in model.tensors.items()]
    layout = lay_out(entries, 50_000)
    with ShardWriter(tmp_path, layout) as writer:
        for name, tensor in model.tensors.items():
            copy_tensor(model, tensor, writer, name)
    stored = {
        name: part["data"] for shard in layout for name, part in deserialize((tmp_path / shard.file).read_bytes())
    }
    assert {name: bytes(data) for name, data in stored.items()} == {
        name: model.read_bytes(name).tobytes() for name in model.tensors
    }


def test_a_source_that_was_cut_meanwhile_is_named(tmp_path: Path) -> None:
    model = open_model(build("llama", tmp_path / "model"))
    name, tensor = max(model.tensors.items(), key=lambda item: item[1].end)
    os.truncate(model.path / tensor.file, tensor.end - 3)
    layout = lay_out([Entry(name, tensor.dtype, tensor.shape, tensor.nbytes)], 50_000)
    with pytest.raises(ModelError, match=r"3 of .* bytes are gone"), ShardWriter(tmp_path, layout) as writer:
        copy_tensor(model, tensor, writer, name)
