"""A written folder as its files are: configuration, tensors, index. What cannot be read becomes a failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prismaquant.errors import ModelError
from prismaquant.exporting.report import Check
from prismaquant.exporting.shards import INDEX
from prismaquant.model.document import read_object
from prismaquant.model.headers import Shard, TensorInfo, read_shard

__all__ = ["Folder", "check_index", "read_folder"]

_CONFIG = "config.json"
_SINGLE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class Folder:
    """What lies in a folder.

    Attributes
    ----------
    path
        The folder.
    config
        Content of ``config.json``.
    tensors
        Tensor name -> where it lies.
    parts
        Module name -> last part of the tensor name -> where it lies.
    """

    path: Path
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    parts: dict[str, dict[str, TensorInfo]]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def is_plain(self) -> bool:
        """Whether the configuration says nothing of a quantization."""
        return self.config.get("quantization_config") is None

    @property
    def has_cache_scheme(self) -> bool:
        """Whether the configuration says that keys and values are quantized."""
        section = self.config.get("quantization_config")
        return isinstance(section, Mapping) and bool(section.get("kv_cache_scheme"))

    def read(self, tensor: TensorInfo) -> npt.NDArray[np.uint8]:
        """The stored bytes, uint8 with one axis.

        Raises
        ------
        ModelError
            If the file is no longer what it was when its header was read.
        """
        path = self.path / tensor.file
        try:
            data = np.fromfile(path, np.uint8, tensor.nbytes, offset=tensor.begin)
        except OSError as cause:
            raise ModelError(f"cannot be read ({cause.strerror})", where=str(path)) from cause
        if data.size != tensor.nbytes:
            raise ModelError("was changed while it was read", where=str(path), hint="leave the folder alone meanwhile")
        return data


def read_folder(path: Path) -> tuple[Folder | None, list[Check]]:
    """The folder, or ``None`` if its configuration or a shard cannot be read; and the rules that its files break."""
    config, failures = _read_config(path)
    shards, broken = _read_shards(path)
    failures += broken
    if config is None or broken:
        return None, failures
    failures += check_index(path, shards)
    # Of a name that two shards have one wins, as for the engines; `check_index` has said so.
    tensors = {tensor.name: tensor for shard in shards for tensor in shard.tensors}
    parts: dict[str, dict[str, TensorInfo]] = {}
    for name, tensor in tensors.items():
        module, _, suffix = name.rpartition(".")
        parts.setdefault(module, {})[suffix] = tensor
    return Folder(path, config, tensors, parts), failures


def _read_config(path: Path) -> tuple[dict[str, Any] | None, list[Check]]:
    try:
        return read_object(path / _CONFIG)[1], []
    except ModelError as error:
        return None, [Check("config-json", _CONFIG, error.message)]


def _read_shards(path: Path) -> tuple[list[Shard], list[Check]]:
    """Headers of all safetensors files of the folder, by the strict reader."""
    files = sorted(path.glob("*.safetensors"))
    if not files:
        return [], [Check("safetensors", str(path), "has no .safetensors file")]
    shards, failures = [], []
    for file in files:
        try:
            shards.append(read_shard(file))
        except ModelError as error:
            tensor = (error.where or "").partition(": ")[2]
            failures.append(Check("safetensors", file.name, f"{tensor}: {error.message}" if tensor else error.message))
    return shards, failures


def check_index(path: Path, shards: Sequence[Shard]) -> list[Check]:
    """The index lists every tensor of every shard, in its shard, and nothing else; no shard is outside it."""
    found: dict[str, list[str]] = {}
    for shard in shards:
        for tensor in shard.tensors:
            found.setdefault(tensor.name, []).append(shard.name)
    failures = [
        Check("index", name, f"is in {len(files)} shards: {', '.join(files)}")
        for name, files in found.items()
        if len(files) > 1
    ]
    if not (path / INDEX).exists():
        if [shard.name for shard in shards] != [_SINGLE]:
            failures.append(Check("index", INDEX, "is missing; without it the only shard must be model.safetensors"))
        return failures
    try:
        document = read_object(path / INDEX)[1]
    except ModelError as error:
        return [*failures, Check("index", INDEX, error.message)]
    weight_map = document.get("weight_map")
    if not isinstance(weight_map, Mapping):
        return [*failures, Check("index", INDEX, "has no weight_map object")]
    listed = {file for file in weight_map.values() if isinstance(file, str)}
    for shard in shards:
        if shard.name not in listed:
            failures.append(Check("stale-shard", shard.name, "is not in the index; some programs load it all the same"))
    for name, file in weight_map.items():
        if file not in found.get(name, ()):
            failures.append(Check("index", name, f"is listed in {file!r}, which does not have it"))
    for name, files in found.items():
        if name not in weight_map and listed.intersection(files):
            failures.append(Check("index", name, f"is in {files[0]} but not in the index"))
    return failures + _check_total(document, shards)


def _check_total(document: Mapping[str, Any], shards: Sequence[Shard]) -> list[Check]:
    metadata = document.get("metadata")
    stated = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    total = sum(tensor.nbytes for shard in shards for tensor in shard.tensors)
    if stated is None or stated == total:
        return []
    return [Check("index", INDEX, f"total_size is {stated}, the tensors have {total} bytes")]
