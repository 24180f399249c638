"""JSON documents with a schema id: ``{"schema": "prismaquant.plan/1", "writer": {...}, ...}``.

Written beside and renamed, so that a reader never sees half a file. Reading is strict about types (the error names the
path inside the document) and refuses a schema or a major version it does not know.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from prismaquant.errors import StageFileError

__all__ = ["decode", "encode", "read", "write", "write_atomic"]

T = TypeVar("T")


def encode(record: Any, schema: str) -> bytes:
    """``record`` (a dataclass) as an indented JSON document that starts with its schema id."""
    body = msgspec.to_builtins(record)
    document = {"schema": schema, "writer": {"prismaquant": _version()}, **body}
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def decode(data: bytes, kind: type[T], schema: str, where: str) -> T:
    """The ``kind`` in the JSON document ``data``.

    Raises
    ------
    StageFileError
        Not JSON, another schema, a newer major version, a missing or mistyped field.
    """
    try:
        document = msgspec.json.decode(data)
    except msgspec.DecodeError as cause:
        raise StageFileError(f"is not a JSON document ({cause})", where=where) from cause
    found = document.get("schema") if isinstance(document, Mapping) else None
    if found != schema:
        raise StageFileError(
            f"has schema {found!r}, expected {schema!r}",
            where=where,
            hint="make it again, or use the release of prismaquant that wrote it",
        )
    try:
        return msgspec.convert(
            {key: value for key, value in document.items() if key not in ("schema", "writer")}, kind
        )
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
    """Write ``record`` to ``path`` so that the file is either the old one or the whole new one."""
    write_atomic(path, encode(record, schema))


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to a temporary file beside ``path``, flush it to the disk, and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files can be read by their owner only, and these travel.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _version() -> str:
    from prismaquant import _core

    return _core.version()
