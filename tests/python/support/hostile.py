"""Ways to break a good model folder, each in one named way. Every function changes the folder in place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "Tensors",
    "config_not_json",
    "dangling_shard",
    "drop_tensor",
    "duplicate_tensor",
    "edit_config",
    "edit_entry",
    "edit_index",
    "edit_json",
    "edit_shard",
    "empty_shard",
    "giant_header",
    "git_lfs_pointer",
    "header_nested_deeply",
    "header_not_json",
    "header_not_object",
    "header_not_utf8",
    "index_without_map",
    "metadata_not_text",
    "missing_shard",
    "no_config",
    "no_weights",
    "pad_header",
    "pickles_only",
    "poison_weight",
    "read_header",
    "set_header",
    "set_tensor",
    "shard_is_folder",
    "shard_of",
    "single_file_beside_index",
    "single_file_with_other_name",
    "tensor_in_two_shards",
    "trailing_bytes",
    "truncated_data",
    "truncated_header",
]

Tensors = dict[str, tuple[str, list[int], bytes]]


# Tools: a good file with other content. Without `name` the only or first shard is meant.


def shard_of(folder: Path, name: str | None = None) -> Path:
    """The shard that holds tensor ``name``."""
    shards = sorted(folder.glob("*.safetensors"))
    return next(path for path in shards if name is None or name in read_header(path))


def read_header(shard: Path) -> dict[str, Any]:
    data = shard.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def set_header(shard: Path, header: bytes) -> None:
    """Replace the JSON of ``shard`` and keep its data."""
    data = shard.read_bytes()
    rest = data[8 + int.from_bytes(data[:8], "little") :]
    shard.write_bytes(len(header).to_bytes(8, "little") + header + rest)


def pad_header(folder: Path, multiple: int) -> None:
    """Fill the header with spaces until the data begin at a multiple, as most writers do."""
    shard = shard_of(folder)
    text = json.dumps(read_header(shard)).encode()
    set_header(shard, text + b" " * (-(8 + len(text)) % multiple))


def edit_entry(folder: Path, name: str, **changes: Any) -> None:
    """Change fields in the header entry of tensor ``name`` without touching the data."""
    shard = shard_of(folder, name)
    header = read_header(shard)
    header[name].update(changes)
    set_header(shard, json.dumps(header).encode())


def edit_shard(folder: Path, change: Callable[[Tensors], object], name: str | None = None) -> None:
    """Write the shard again, well-formed, with the tensors as ``change`` leaves them: name -> dtype, shape, bytes."""
    shard = shard_of(folder, name)
    data = shard.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors: Tensors = {}
    for key, entry in read_header(shard).items():
        if key != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[key] = (entry["dtype"], entry["shape"], data[start + begin : start + end])
    change(tensors)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, (dtype, shape, content) in tensors.items():
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(content)]}
        end += len(content)
    text = json.dumps(header).encode()
    body = b"".join(content for _, _, content in tensors.values())
    shard.write_bytes(len(text).to_bytes(8, "little") + text + body)


def set_tensor(folder: Path, name: str, dtype: str, shape: list[int], content: bytes) -> None:
    """Add or replace a tensor; a new one goes into the first shard."""
    known = any(name in read_header(path) for path in folder.glob("*.safetensors"))
    edit_shard(folder, lambda tensors: tensors.update({name: (dtype, shape, content)}), name if known else None)


def drop_tensor(folder: Path, name: str) -> None:
    edit_shard(folder, lambda tensors: tensors.pop(name), name)


def poison_weight(folder: Path, name: str, values: list[float]) -> None:
    """Overwrite the first weights of the BF16 tensor ``name`` with ``values`` (NaN, infinities)."""
    bits = (np.asarray(values, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()

    def change(tensors: Tensors) -> None:
        dtype, shape, content = tensors[name]
        assert dtype == "BF16"
        tensors[name] = (dtype, shape, bits + content[len(bits) :])

    edit_shard(folder, change, name)


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def edit_config(folder: Path, **changes: Any) -> None:
    edit_json(folder / "config.json", lambda config: config.update(changes))


def edit_index(folder: Path, **changes: Any) -> None:
    """Change entries of the weight map: tensor name -> file name, ``None`` takes the entry out."""

    def change(index: dict[str, Any]) -> None:
        index["weight_map"].update(changes)
        index["weight_map"] = {key: value for key, value in index["weight_map"].items() if value is not None}

    edit_json(folder / "model.safetensors.index.json", change)


# Files that are damaged, as downloads and editors damage them.


def missing_shard(folder: Path) -> None:
    shard_of(folder).unlink()


def dangling_shard(folder: Path) -> None:
    shard = shard_of(folder)
    shard.unlink()
    shard.symlink_to(folder / "blobs" / "gone")


def shard_is_folder(folder: Path) -> None:
    shard = shard_of(folder)
    shard.unlink()
    shard.mkdir()


def truncated_data(folder: Path) -> None:
    shard = shard_of(folder)
    shard.write_bytes(shard.read_bytes()[:-100])


def truncated_header(folder: Path) -> None:
    shard = shard_of(folder)
    shard.write_bytes(shard.read_bytes()[:200])


def empty_shard(folder: Path) -> None:
    shard_of(folder).write_bytes(b"")


def trailing_bytes(folder: Path) -> None:
    with shard_of(folder).open("ab") as file:
        file.write(bytes(3))


def giant_header(folder: Path) -> None:
    shard = shard_of(folder)
    shard.write_bytes((10**12).to_bytes(8, "little") + shard.read_bytes()[8:])


def git_lfs_pointer(folder: Path) -> None:
    shard_of(folder).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 13054480\n")


def header_not_utf8(folder: Path) -> None:
    set_header(shard_of(folder), b'{"\xff":1}')


def header_not_json(folder: Path) -> None:
    set_header(shard_of(folder), b'{"a":')


def header_not_object(folder: Path) -> None:
    set_header(shard_of(folder), b"[]")


def header_nested_deeply(folder: Path) -> None:
    set_header(shard_of(folder), b'{"a":' + b"[" * 100_000)


def metadata_not_text(folder: Path) -> None:
    set_header(shard_of(folder), b'{"__metadata__":{"a":1}}')


def duplicate_tensor(folder: Path) -> None:
    shard = shard_of(folder)
    header = json.dumps(read_header(shard))
    set_header(shard, (header[:-1] + ', "model.norm.weight": {}}').encode())


# Folders of another kind.


def pickles_only(folder: Path) -> None:
    shard_of(folder).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (folder / "consolidated.00.pth").write_bytes(b"\x80\x04.")


def single_file_with_other_name(folder: Path) -> None:
    shard_of(folder).rename(folder / "weights.safetensors")


def no_weights(folder: Path) -> None:
    shard_of(folder).unlink()


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def config_not_json(folder: Path) -> None:
    (folder / "config.json").write_text("<!DOCTYPE html>")


def index_without_map(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("{}")


def tensor_in_two_shards(folder: Path) -> None:
    first, second = sorted(folder.glob("*.safetensors"))[:2]
    name = next(key for key in read_header(first) if key != "__metadata__")
    edit_shard(folder, lambda tensors: tensors.update({name: ("U8", [1], b"x")}), next(iter(_names(second))))


def single_file_beside_index(folder: Path) -> None:
    shutil.copyfile(shard_of(folder), folder / "model.safetensors")


def _names(shard: Path) -> list[str]:
    return [key for key in read_header(shard) if key != "__metadata__"]
