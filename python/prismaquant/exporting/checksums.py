"""``SHA256SUMS``: the sum of every file of a folder, in the form that ``sha256sum --check`` reads."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from prismaquant.exporting.report import Check

__all__ = ["FILE", "RunningSum", "check_checksums", "write_checksums"]

FILE = "SHA256SUMS"

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_BUFFER = 2**18


class RunningSum:
    """SHA-256 of a file that is still being written: taken behind the writer, while the system has the bytes in memory.

    Parameters
    ----------
    descriptor
        Of the file, open for reading until `close`.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._thread = ThreadPoolExecutor(1)  # one: the parts are taken one behind the other
        self._hash = hashlib.sha256()
        self._end = 0  # everything before is written
        self._behind: dict[int, int] = {}  # begin -> end of what is written behind a part that is not
        self._taken: list[Future[None]] = []

    def wrote(self, begin: int, end: int) -> None:
        """Note that the bytes from ``begin`` to ``end`` are in the file and stay as they are; in any order."""
        if begin == end:
            return
        self._behind[begin] = end
        start = self._end
        while self._end in self._behind:
            self._end = self._behind.pop(self._end)
        if self._end > start:
            self._taken.append(self._thread.submit(self._take, start, self._end))

    def result(self) -> str:
        """The sum in hexadecimal, when all of the file was written.

        Raises
        ------
        OSError
            If the file cannot be read.
        """
        for part in self._taken:
            part.result()
        return self._hash.hexdigest()

    def close(self) -> None:
        """End the work, whether or not there is a result."""
        self._thread.shutdown(cancel_futures=True)

    def _take(self, begin: int, end: int) -> None:
        buffer = memoryview(bytearray(min(_BUFFER, end - begin)))
        while begin < end:
            count = os.preadv(self._descriptor, [buffer[: end - begin]], begin)
            if count == 0:
                raise OSError("a file was cut while it was being written")
            self._hash.update(buffer[:count])
            begin += count


def write_checksums(folder: Path, known: Mapping[str, str]) -> None:
    """Write the file for all others in ``folder``, sorted by name; ``known`` is the sums of those that have one."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE)
    named = [(path.relative_to(folder).as_posix(), path) for path in files]
    lines = [f"{known.get(name) or _sum(path)}  {name}\n" for name, path in named]
    (folder / FILE).write_text("".join(lines), "utf-8")


def check_checksums(folder: Path) -> list[Check]:
    """Every file that is listed is there and has its sum; a folder without the list breaks no rule."""
    path = folder / FILE
    if not path.is_file():
        return []
    failures = []
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None or ".." in Path(match[2]).parts or Path(match[2]).is_absolute():
            failures.append(Check("checksum", f"{FILE}: line {number}", "is not a sum and the name of a file"))
            continue
        listed = folder / match[2]
        if not listed.is_file():
            failures.append(Check("checksum", match[2], f"is missing, {FILE} lists it"))
        elif _sum(listed) != match[1]:
            failures.append(Check("checksum", match[2], f"has other bytes than {FILE} says"))
    return failures


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
