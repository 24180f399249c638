"""JSON documents of other people's folders, read without trust: `parse_object`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from prismaquant.errors import ModelError

__all__ = ["MAX_BYTES", "parse_object", "read_object"]

#: Largest header of a safetensors file by its specification; no configuration or index comes near it either.
MAX_BYTES = 100_000_000

_DAMAGED = "the file is damaged or incomplete, download it again"


def parse_object(data: bytes, where: str, *, what: str = "file") -> dict[str, Any]:
    """The JSON object in ``data``.

    Parameters
    ----------
    data
        UTF-8 without a byte order mark.
    where, what
        The file, and what of it is read (``"file"``, ``"header"``), both for messages.

    Raises
    ------
    ModelError
        Not UTF-8, not JSON, not an object, nested too deeply, or a key that occurs twice in one object: programs
        differ in which of the two values they take.
    """
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as cause:
        raise ModelError(f"the {what} is not UTF-8 text (byte {cause.start})", where=where, hint=_DAMAGED) from cause
    except RecursionError as cause:
        raise ModelError(f"the {what} is nested too deeply for JSON", where=where, hint=_DAMAGED) from cause
    except ValueError as cause:  # JSONDecodeError, a duplicate key, an integer of thousands of digits
        raise ModelError(f"the {what} is not valid JSON ({cause})", where=where, hint=_DAMAGED) from cause
    if not isinstance(document, dict):
        raise ModelError(f"the {what} is not a JSON object", where=where, hint=_DAMAGED)
    return document


def read_object(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Bytes and content of the JSON object in the file ``path``; errors as in `parse_object`, or if it is missing."""
    try:
        if not path.is_file():
            hint = "give the folder of a Hugging Face model"
            raise ModelError("is missing, or is no file", where=str(path), hint=hint)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as cause:
        raise ModelError(f"cannot be read ({cause.strerror})", where=str(path)) from cause
    if len(data) > MAX_BYTES:
        raise ModelError(f"is larger than {MAX_BYTES} bytes", where=str(path), hint=_DAMAGED)
    return data, parse_object(data, str(path))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        ((key, number),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"key {key!r} occurs {number} times")
    return result
