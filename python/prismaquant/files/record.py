"""JSON documents with a schema id: ``{"schema": "prismaquant.recipe/1", "writer": {...}, ...}``.

Written beside and renamed, so that a reader never sees half a file. Reading is strict about types (the error names the
path inside the document), ignores fields it does not know, and refuses a schema or a major version it does not know.
A number without a fraction is an integer however it is written (``2``, ``2.0``, ``2e0``), as in JSON Schema.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from prismaquant.errors import Error, NumericError, StageFileError

__all__ = ["Count", "Positive", "decode", "document", "encode", "read", "write", "write_atomic"]

T = TypeVar("T")

#: Largest integer that every reader of JSON keeps, those that read all numbers as doubles included.
_LARGEST = 2**53 - 1
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=_LARGEST)]
Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=_LARGEST)]


def document(record: Any, schema: str) -> dict[str, Any]:
    """``record`` (a dataclass) as the document that `encode` writes: plain values, the schema id first.

    Raises
    ------
    NumericError
        A number is NaN or infinite, which JSON cannot hold; names the path inside the document.
    """
    whole = {"schema": schema, "writer": {"prismaquant": _version()}, **msgspec.to_builtins(record)}
    place = next(_not_finite(whole, "$"), None)
    if place is not None:
        raise NumericError("is NaN or infinite, which no JSON document can hold", where=f"{schema} {place}")
    return whole


def encode(record: Any, schema: str) -> bytes:
    """``record`` (a dataclass) as an indented JSON document that starts with its schema id; errors as in `document`."""
    return msgspec.json.format(msgspec.json.encode(document(record, schema)), indent=1) + b"\n"


def decode(data: bytes, kind: type[T], schema: str, where: str) -> T:
    """The ``kind`` in the JSON document ``data``.

    Raises
    ------
    StageFileError
        Not JSON, another schema, a newer major version, a missing or mistyped field.
    """
    try:
        found = _DECODER.decode(data.removeprefix(_BYTE_ORDER_MARK))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise StageFileError(f"is not a JSON document ({cause})", where=where) from cause
    named = found.get("schema") if isinstance(found, Mapping) else None
    if named != schema:
        raise StageFileError(
            f"has schema {named!r}, expected {schema!r}" if named else f"has no schema id, expected {schema!r}",
            where=where,
            hint="make it again, or use the release of prismaquant that wrote it",
        )
    try:
        return msgspec.convert({key: value for key, value in found.items() if key not in ("schema", "writer")}, kind)
    except msgspec.ValidationError as cause:
        raise StageFileError(f"breaks its schema {schema}: {cause}", where=where) from cause


def read(path: Path, kind: type[T], schema: str) -> T:
    """The ``kind`` in the JSON file ``path``; errors as in `decode`."""
    try:
        data = path.read_bytes()
    except OSError as cause:
        raise StageFileError(f"cannot be read ({cause.strerror})", where=str(path)) from cause
    return decode(data, kind, schema, str(path))


def write(path: Path, record: Any, schema: str) -> None:
    """Write ``record`` to ``path`` so that the file is either the old one or the whole new one.

    Raises
    ------
    NumericError
        As `document`.
    Error
        As `write_atomic`.
    """
    write_atomic(path, encode(record, schema))


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to a temporary file beside ``path``, flush it to the disk, and rename it.

    Raises
    ------
    Error
        The operating system refused; ``path`` is as it was.
    """
    # Not tempfile: its files can be read by their owner only, and these travel.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as cause:
        raise Error(f"cannot be written ({cause.strerror})", where=str(path)) from cause


def _number(text: str) -> int | float:
    value = float(text)
    if value - value != 0.0:
        raise msgspec.DecodeError(f"the number {text[:20]} is out of range")
    return int(value) if value.is_integer() and abs(value) <= _LARGEST else value


_DECODER = msgspec.json.Decoder(float_hook=_number)


def _not_finite(value: Any, place: str) -> Iterator[str]:
    """The places of all numbers in ``value`` that are NaN or infinite."""
    if isinstance(value, float) and value - value != 0.0:
        yield place
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _not_finite(item, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{place}[{index}]")


def _version() -> str:
    from prismaquant import _core

    return _core.version()
