"""`process`: conversations about images and audio -> the inputs of a model, by the processor in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prismaquant.errors import DataError, MissingExtraError, ModelError
from prismaquant.streaming.documents import read_records

__all__ = ["process"]

#: Keys of a part of a message under which chat templates look for an image, a video or audio.
_PLACES = ("path", "image", "video", "audio", "url")

_HINT = 'write {"messages": [{"role": "user", "content": [{"type": "image", "path": "a.png"}, ...]}]} in every line'


def process(path: Path, folder: Path) -> dict[str, Any]:
    """Line -> what the processor in ``folder`` returns for the ``"messages"`` in that line of a ``.jsonl`` file.

    Raises
    ------
    DataError
        A line is of another form, names a file that is not there or a place in the network, or is refused by the
        processor.
    ModelError
        ``folder`` has no processor, or it cannot be loaded.
    MissingExtraError
        The processor needs a package that is not installed.
    """
    from transformers import AutoProcessor  # takes more than a second, which text alone need not wait for

    try:
        load: Any = AutoProcessor.from_pretrained  # transformers is typed in part only
        processor = load(folder, local_files_only=True, trust_remote_code=False)
    except ImportError as cause:
        raise MissingExtraError(f"the processor cannot be loaded ({_first_line(cause)})", where=str(folder)) from cause
    except Exception as cause:  # whatever a processor's files make it raise
        raise ModelError(f"the processor cannot be loaded ({_first_line(cause)})", where=str(folder)) from cause
    if not hasattr(processor, "apply_chat_template") or not hasattr(processor, "tokenizer"):
        hint = "copy its files from the model's source, or give .safetensors"
        raise ModelError("has no processor", where=str(folder), hint=hint)
    found = {}
    for where, record in read_records(path):
        messages = record.get("messages") if isinstance(record, dict) else None
        if not isinstance(messages, list):
            raise DataError('has no "messages"', where=where, hint=_HINT)
        placed = [_placed(message, path.parent, where) for message in messages]
        try:
            found[where] = dict(
                processor.apply_chat_template(placed, tokenize=True, return_dict=True, return_tensors="pt")
            )
        except Exception as cause:  # whatever a template or a decoder of images raises
            raise DataError(f"the processor refuses the messages ({_first_line(cause)})", where=where) from cause
    return found


def _placed(message: object, folder: Path, where: str) -> dict[str, Any]:
    """``message`` with the places of its files relative to ``folder`` made absolute."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise DataError('"messages" is no list of messages', where=where, hint=_HINT)
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [_with_file(part, folder, where) for part in content]}


def _with_file(part: object, folder: Path, where: str) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise DataError(f"a part of a message is a {type(part).__name__}", where=where, hint=_HINT)
    places = {key: part[key] for key in _PLACES if isinstance(part.get(key), str)}
    for place in places.values():
        if "://" in place:
            raise DataError(f"{place} is not on this machine", where=where, hint="save it, and name the file")
        if not (folder / place).is_file():
            raise DataError(f"there is no file {folder / place}", where=where)
    return {**part, **{key: str(folder / place) for key, place in places.items()}}


def _first_line(cause: Exception) -> str:
    return next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
