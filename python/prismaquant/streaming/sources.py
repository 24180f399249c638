"""Where calibration data comes from: `parse` turns what the user names into a `Source`.

    PATH[:n=K][,weight=W][,split=NAME]
    default[:n=K][,weight=W]             the built-in text
    self[:n=K][,weight=W]                sampled from the model

A name that exists as a file or a folder as it stands is a path, colons and all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prismaquant.errors import DataError

if TYPE_CHECKING:
    from prismaquant.types import PathLike

__all__ = ["DEFAULT", "SELF", "SUFFIXES", "Source", "builtin", "list_files", "parse"]

#: Names that are no path.
DEFAULT = "default"
SELF = "self"

SUFFIXES = (".txt", ".jsonl", ".npy")

_BUILTIN: tuple[Path, ...] = (Path(__file__).with_name("data") / "default.txt",)
_SPELLING = "write PATH:n=K,weight=W,split=NAME, each of them optional"
_KEYS = ("n", "weight", "split")


@dataclass(frozen=True, slots=True)
class Source:
    """Files that are drawn from together.

    Attributes
    ----------
    name
        As the user wrote it, without options.
    files
        What it holds, in order; none if it is sampled from the model.
    windows
        How many windows to draw; ``None``: a share by ``weight`` of what the sources with a number leave.
    weight
        Of the share.
    """

    name: str
    files: tuple[Path, ...]
    windows: int | None = None
    weight: float = 1.0


def builtin() -> Source:
    """The built-in text: prose, dialogue, code, lists and arithmetic in plain English, made for this purpose."""
    return Source(DEFAULT, _BUILTIN)


def parse(spec: PathLike) -> Source:
    """The source that ``spec`` names.

    Raises
    ------
    DataError
        There is no such file, none of a kind that can be read, or the options are malformed.
    """
    text = os.fspath(spec)
    name, options = (text, dict[str, str]()) if Path(text).exists() else _options(text)
    split = options.get("split")
    if name in (DEFAULT, SELF) and not Path(name).exists():
        if split is not None:
            raise DataError("has no splits", where=text, hint=_SPELLING)
        files = _BUILTIN if name == DEFAULT else ()
    else:
        files = _files(Path(name), split)
    return Source(name, files, _windows(options, text), _weight(options, text))


def _options(text: str) -> tuple[str, dict[str, str]]:
    """The path and the options of ``PATH:key=value,...``; a tail without ``=`` belongs to the path."""
    name, colon, tail = text.rpartition(":")
    if not colon or "=" not in tail or os.sep in tail:
        return text, {}
    options: dict[str, str] = {}
    for option in tail.split(","):
        key, _, value = option.partition("=")
        if key not in _KEYS or not value or key in options:
            raise DataError(f"the option {option!r} cannot be understood", where=text, hint=_SPELLING)
        options[key] = value
    if "n" in options and "weight" in options:
        raise DataError("has n and weight", where=text, hint="n says how many windows, weight shares what others leave")
    return name, options


def _windows(options: Mapping[str, str], where: str) -> int | None:
    if "n" not in options:
        return None
    if not options["n"].isdecimal() or int(options["n"]) < 1:
        raise DataError(f"n is {options['n']}", where=where, hint="n is a number of windows, at least 1")
    return int(options["n"])


def _weight(options: Mapping[str, str], where: str) -> float:
    try:
        weight = float(options.get("weight", "1"))
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise DataError(f"weight is {options['weight']}", where=where, hint="a weight is a positive number")
    return weight


def list_files(path: Path, suffixes: Sequence[str], kinds: str) -> tuple[Path, ...]:
    """The file ``path``, or all files with one of ``suffixes`` in the folder ``path``, sorted.

    Parameters
    ----------
    kinds
        What is expected, for the message of an error.

    Raises
    ------
    DataError
        There is no such file, or none of these kinds.
    """
    if path.is_dir():
        found = tuple(sorted(file for file in path.rglob("*") if file.suffix in suffixes and file.is_file()))
        if not found:
            names = f"{', '.join(suffixes[:-1])} and {suffixes[-1]}"
            raise DataError(f"is a folder without {names} files", where=str(path), hint=kinds)
        return found
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), hint=kinds)
    if path.suffix not in suffixes:
        raise DataError(f"has the suffix {path.suffix!r}", where=str(path), hint=kinds)
    return (path,)


def _files(path: Path, split: str | None) -> tuple[Path, ...]:
    found = list_files(path, SUFFIXES, "give a .txt, .jsonl or .npy file, or a folder of them")
    if split is None:
        return found
    base = path if path.is_dir() else path.parent
    kept = tuple(file for file in found if _is_of(split, file.relative_to(base)))
    if not kept:
        raise DataError(
            f"has no file of the split {split!r}",
            where=str(path),
            hint=f"a file or a folder is of it whose name is {split}, or starts with {split}- or {split}.",
        )
    return kept


def _is_of(split: str, file: Path) -> bool:
    """Whether the stem of ``file``, or a folder on the way to it, is ``split`` or a part of it."""
    names = (*file.parts[:-1], file.stem)
    return any(name == split or name.startswith((f"{split}-", f"{split}.")) for name in names)
