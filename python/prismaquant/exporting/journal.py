"""What of a folder in work is on the disk already, so that a run that was killed goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from prismaquant.files.manifest import LinearRecord

__all__ = ["Journal"]

_FILE = ".journal"


class Journal:
    """One line for every unit or tensor whose bytes are on the disk, in a file beside the shards.

    Parameters
    ----------
    key
        Of everything that the bytes depend on: a journal with another key is worth nothing.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._waiting: list[str] = []
        self._path: Path | None = None

    def __repr__(self) -> str:
        return f"Journal({self._key})"

    def matches(self, folder: Path) -> bool:
        """Whether a run with this key left ``folder``."""
        return self._lines(folder)[:1] == [json.dumps(self._key)]

    def open(self, folder: Path) -> dict[str, tuple[LinearRecord, ...]]:
        """What is written: name of the unit or tensor -> the records of its Linears. Begins a new file if need be."""
        self._path = folder / _FILE
        found: dict[str, tuple[LinearRecord, ...]] = {}
        if not self.matches(folder):
            self._path.write_text(json.dumps(self._key) + "\n")
            return found
        for line in self._lines(folder)[1:]:
            try:
                name, records = json.loads(line)
                found[name] = tuple(LinearRecord(*record) for record in records)
            except (ValueError, TypeError):
                break  # the line that was being written
        return found

    def add(self, name: str, records: Sequence[LinearRecord] = ()) -> None:
        """Note that the bytes of ``name`` were written; `commit` makes it count."""
        fields = [[record.name, record.scheme, record.bytes, record.squared_error] for record in records]
        self._waiting.append(json.dumps([name, fields]))

    def commit(self) -> None:
        """Write what was noted; the caller has had the disk take the bytes before."""
        assert self._path is not None
        with self._path.open("a") as file:
            file.write("".join(f"{line}\n" for line in self._waiting))
            file.flush()
            os.fsync(file.fileno())
        self._waiting.clear()

    def close(self) -> None:
        """Remove the file: the folder is complete."""
        assert self._path is not None
        self._path.unlink()

    @staticmethod
    def _lines(folder: Path) -> list[str]:
        try:
            return (folder / _FILE).read_text("utf-8", "replace").splitlines()
        except OSError:
            return []
