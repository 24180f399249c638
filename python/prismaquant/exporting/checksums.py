"""``SHA256SUMS``: the sum of every file of a folder, in the form that ``sha256sum --check`` reads."""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prismaquant.exporting.publish import sync
from prismaquant.exporting.report import Check

__all__ = ["FILE", "check_checksums", "write_checksums"]

FILE = "SHA256SUMS"

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_checksums(folder: Path) -> None:
    """Write the file for all others in ``folder``, sorted by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE)
    with ThreadPoolExecutor() as pool:
        synced = pool.map(sync, files)  # the disk takes them meanwhile, which publishing would have to wait for
        sums = list(pool.map(_sum, files))
        list(synced)  # raises what went wrong
    lines = [f"{of_file}  {path.relative_to(folder).as_posix()}\n" for path, of_file in zip(files, sums, strict=True)]
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
