"""Safetensors shards whose headers are known before the first tensor is.

`lay_out` decides which tensor goes into which file and where; `ShardWriter` then takes the tensors in any order and
puts each at its place, so that memory holds no more than the tensor being written.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prismaquant.errors import ShapeError
from prismaquant.exporting.checksums import RunningSum

if TYPE_CHECKING:
    from prismaquant.types import Array

__all__ = ["INDEX", "Entry", "Shard", "ShardWriter", "header", "index", "lay_out"]

INDEX = "model.safetensors.index.json"

#: What old systems, and some between two file systems, say to `os.copy_file_range`.
_CANNOT_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor to be written: its name, safetensors dtype, shape and size in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    @property
    def module(self) -> str:
        """Name of the module that owns the tensor (all but the last part of the name)."""
        return self.name.rpartition(".")[0]

    @property
    def item_bytes(self) -> int:
        """Bytes of one item; 0 for items smaller than a byte and for empty tensors."""
        return self.nbytes // max(1, math.prod(self.shape))


@dataclass(frozen=True, slots=True)
class Shard:
    """One file and its tensors in the order in which they lie in it."""

    file: str
    entries: tuple[Entry, ...]

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return len(header(self.entries)) + sum(entry.nbytes for entry in self.entries)


def lay_out(entries: Iterable[Entry], shard_size: int) -> tuple[Shard, ...]:
    """Distribute ``entries`` over files of at most ``shard_size`` bytes of tensors, in the order of the layers.

    All tensors of one module share a file; a module larger than ``shard_size`` gets a file of its own.
    """
    modules: dict[str, list[Entry]] = {}
    for entry in entries:
        modules.setdefault(entry.module, []).append(entry)
    files: list[list[Entry]] = []
    room = 0
    for module in sorted(modules, key=_natural):
        size = sum(entry.nbytes for entry in modules[module])
        if not files or size > room:
            files.append([])
            room = shard_size
        files[-1] += modules[module]
        room -= size
    return tuple(
        # Larger items first: every tensor then starts at a multiple of its item size without padding between tensors.
        Shard(
            f"model-{number:05d}-of-{len(files):05d}.safetensors",
            tuple(sorted(file, key=lambda entry: (-entry.item_bytes, entry.name))),
        )
        for number, file in enumerate(files, start=1)
    )


def header(entries: Sequence[Entry]) -> bytes:
    """The bytes before the data: length, JSON, and spaces up to a multiple of 8."""
    document: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for entry, begin in _places(entries):
        offsets = [begin, begin + entry.nbytes]
        document[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": offsets}
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def index(shards: Sequence[Shard]) -> bytes:
    """The JSON file that says which shard holds which tensor, names sorted."""
    files = {entry.name: shard.file for shard in shards for entry in shard.entries}
    total = sum(entry.nbytes for shard in shards for entry in shard.entries)
    document = {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))}
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


class ShardWriter:
    """Writes the files of ``shards`` into ``folder``, where a run that was killed may have begun them.

    Used with ``with``: the headers are written on entry; on exit without an error every tensor must have been written,
    or skipped.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self._folder = folder
        self._shards = shards
        self._files = contextlib.ExitStack()
        self._waiting: dict[str, tuple[int, int, int]] = {}  # name -> descriptor, offset in the file, bytes
        self._unsynced: dict[int, int] = {}  # descriptor -> bytes that the disk may not have taken yet
        self._running: dict[int, RunningSum] = {}  # by descriptor, in the order of the shards
        #: File -> its SHA-256 in hexadecimal, after the exit.
        self.sums: dict[str, str] = {}

    def __enter__(self) -> ShardWriter:
        with contextlib.ExitStack() as opened:
            for shard in self._shards:
                path = self._folder / shard.file
                descriptor = opened.enter_context(path.open("r+b" if path.exists() else "x+b")).fileno()
                start = header(shard.entries)
                _write(descriptor, 0, memoryview(start))
                self._running[descriptor] = opened.enter_context(contextlib.closing(RunningSum(descriptor)))
                self._running[descriptor].wrote(0, len(start))
                for entry, begin in _places(shard.entries):
                    self._waiting[entry.name] = (descriptor, len(start) + begin, entry.nbytes)
            self._files = opened.pop_all()
        return self

    def write(self, name: str, data: Array) -> None:
        """Write the tensor ``name``; ``data`` is an array of any dtype whose bytes in C order are those of the tensor.

        Raises
        ------
        ShapeError
            If ``data`` has another number of bytes than announced, or ``name`` was not announced or is written twice.
        """
        self.write_parts(name, (data,))

    def write_parts(self, name: str, parts: Iterable[Array]) -> None:
        """As `write`, with the bytes of ``parts`` one behind the other."""
        if name not in self._waiting:
            raise ShapeError("is not in the layout, or was written before", where=name)
        descriptor, offset, nbytes = self._waiting[name]
        written = 0
        for part in parts:
            written += part.nbytes
            if written > nbytes:
                break
            _write(descriptor, offset + written - part.nbytes, part.reshape(-1).view(np.uint8).data)
        if written != nbytes:
            raise ShapeError(f"has {written} bytes, the header says {nbytes}", where=name)
        self._unsynced[descriptor] = self._unsynced.get(descriptor, 0) + nbytes
        self.skip(name)

    def copy(self, name: str, source: int, begin: int) -> bool:
        """Write the tensor ``name`` from byte ``begin`` of the file open as ``source``, without reading it here.

        Returns
        -------
        bool
            Whether it was done; not where the system cannot copy between these files, or ``source`` ends before.
        """
        descriptor, offset, nbytes = self._waiting[name]
        done = 0
        while done < nbytes:
            try:
                copied = os.copy_file_range(source, descriptor, nbytes - done, begin + done, offset + done)
            except OSError as error:
                if error.errno in _CANNOT_COPY:
                    return False
                raise
            if copied == 0:
                return False
            done += copied
        self._unsynced[descriptor] = self._unsynced.get(descriptor, 0) + nbytes
        self.skip(name)
        return True

    def skip(self, name: str) -> None:
        """Leave the tensor ``name`` as an earlier run has written it."""
        descriptor, offset, nbytes = self._waiting.pop(name)
        self._running[descriptor].wrote(offset, offset + nbytes)

    @property
    def unsynced(self) -> int:
        """Bytes that the disk may not have taken yet."""
        return sum(self._unsynced.values())

    def sync(self) -> None:
        """Have the disk take everything that was written."""
        for descriptor in self._unsynced:
            os.fsync(descriptor)
        self._unsynced.clear()

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        with self._files:
            if kind is None and self._waiting:
                raise ShapeError(f"{len(self._waiting)} tensors were not written", where=next(iter(self._waiting)))
            if kind is None:
                self.sync()  # while the sums are taken
                running = self._running.values()
                self.sums = {shard.file: of.result() for shard, of in zip(self._shards, running, strict=True)}


def _places(entries: Sequence[Entry]) -> Iterator[tuple[Entry, int]]:
    """Each entry with its offset from the start of the data: no holes."""
    begin = 0
    for entry in entries:
        yield entry, begin
        begin += entry.nbytes


def _write(descriptor: int, offset: int, data: memoryview) -> None:
    """Write all of ``data``: one call of the system may write less, at most 2 GiB on Linux."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        offset += written
        data = data[written:]


def _natural(name: str) -> list[str | int]:
    """Sort key under which ``layers.2`` comes before ``layers.10``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]
