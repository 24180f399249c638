"""What is in a file of calibration data: documents of text, or token ids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prismaquant.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Chat", "load_ids", "read_documents", "read_records"]


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation, which the chat template of a tokenizer makes a text of.

    Attributes
    ----------
    where
        File and line.
    messages
        Each with ``"role"`` and ``"content"``.
    """

    where: str
    messages: list[dict[str, Any]]


def read_documents(path: Path) -> list[str | Chat]:
    """The documents of a ``.txt`` (one, UTF-8) or ``.jsonl`` file (one in each line, ``"text"`` or ``"messages"``).

    Raises
    ------
    DataError
        The file is of another form: which line, and what it lacks.
    """
    if path.suffix == ".jsonl":
        return [_document(record, where) for where, record in read_records(path)]
    return [_read_text(path)]


def load_ids(path: Path) -> npt.NDArray[Any]:
    """The token ids in a ``.npy`` file: a stream ``[tokens]`` or windows ``[windows, seq_len]``. No pickle is opened.

    Raises
    ------
    DataError
        It holds something else.
    """
    try:
        ids = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as cause:
        raise DataError(f"is not an array of token ids ({cause})", where=str(path)) from cause
    if not isinstance(ids, np.ndarray) or not np.issubdtype(ids.dtype, np.integer):
        kind = ids.dtype if isinstance(ids, np.ndarray) else type(ids).__name__
        raise DataError(f"holds {kind}", where=str(path), hint="token ids are integers")
    if ids.ndim not in (1, 2):
        raise DataError(
            f"has shape {list(ids.shape)}", where=str(path), hint="give a stream [tokens] or windows [windows, seq_len]"
        )
    return ids


def read_records(path: Path) -> Iterator[tuple[str, Any]]:
    """File and line, and what is in it, of every line of a ``.jsonl`` file that is not empty.

    Raises
    ------
    DataError
        A line is not JSON.
    """
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except ValueError as cause:
                raise DataError(f"is not JSON ({cause})", where=f"{path}:{number}") from cause


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as cause:
        raise DataError(f"is not UTF-8 text ({cause.reason} at byte {cause.start})", where=str(path)) from cause


def _document(record: object, where: str) -> str | Chat:
    text, messages = (record.get("text"), record.get("messages")) if isinstance(record, dict) else (None, None)
    if isinstance(text, str):
        return text
    if messages is None:
        raise DataError(
            'has no "text" string and no "messages"',
            where=where,
            hint='write {"text": "..."} or {"messages": [{"role": "user", "content": "..."}, ...]} in every line',
        )
    if not (isinstance(messages, list) and messages and all(_is_message(each) for each in messages)):
        raise DataError(
            '"messages" is no list of messages',
            where=where,
            hint='a message is {"role": "user", "content": "..."}, both of them text',
        )
    return Chat(where, messages)


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("role", "content"))
