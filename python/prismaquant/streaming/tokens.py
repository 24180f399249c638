"""Text or token ids -> windows of tokens.

Text is packed: the documents of a file are tokenized without special tokens, joined to one stream, and the stream is
cut into windows. If the model's tokenizer adds a BOS token, every window starts with it (a model that was trained with
one computes nonsense without it) and holds ``seq_len - 1`` tokens of text. Token ids (``.npy``) are used as they are: a
1-D array is a stream that is cut into windows, a 2-D array holds ready windows; no tokenizer is read and no BOS is
added.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import AutoTokenizer

from prismaquant.errors import ArgumentError, DataError, ModelError
from prismaquant.files.fingerprint import fingerprint

if TYPE_CHECKING:
    import numpy.typing as npt

    from prismaquant.model import Model
    from prismaquant.types import PathLike

__all__ = ["Tokens", "check_ids", "read_tokens"]

#: One of these is in every folder that a tokenizer can be loaded from.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Windows of token ids.

    Attributes
    ----------
    ids
        int64 ``[windows, seq_len]``.
    fingerprint
        ``"sha256:..."`` of the ids and their shape.
    dropped
        Tokens of the data that are in no window: the tail that fills none, and the windows that were not drawn.
    """

    ids: npt.NDArray[np.int64] = field(compare=False)
    fingerprint: str
    dropped: int

    def __repr__(self) -> str:
        return f"Tokens({self.ids.shape[0]} windows of {self.ids.shape[1]}, {self.dropped} dropped)"


def read_tokens(data: PathLike, model: Model, *, samples: int | None, seq_len: int, seed: int = 0) -> Tokens:
    """The windows of tokens in ``data``.

    Parameters
    ----------
    data
        ``.txt`` (UTF-8, one document), ``.jsonl`` (a document under ``"text"`` in each line), or ``.npy`` (integer
        token ids: 1-D a stream, 2-D ready windows, whose width must be ``seq_len``).
    model
        Its folder holds the tokenizer; its vocabulary bounds the ids.
    samples
        Windows to draw, without replacement and in the order of the data; ``None``: all there are.
    seq_len
        Tokens per window, BOS included.
    seed
        Seed of the draw.

    Raises
    ------
    DataError
        The file is missing, broken, of another kind, too short (says how many tokens it has and how many are needed),
        or holds ids that the model does not have.
    ModelError
        Text was given and the model folder has no tokenizer that can be loaded.
    """
    if seq_len < 2:
        raise ArgumentError(f"seq_len is {seq_len}", hint="a window needs at least 2 tokens")
    if samples is not None and samples < 1:
        raise ArgumentError(f"samples is {samples}", hint="ask for at least 1 window, or None for all")
    path = Path(data)
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), hint="give a .txt, .jsonl or .npy file")
    bos = None
    if path.suffix == ".npy":
        ids = _load_ids(path)
    elif path.suffix in (".txt", ".jsonl"):
        ids, bos = _tokenize(_read_text(path) if path.suffix == ".txt" else _read_jsonl(path), model.path)
    else:
        raise DataError(f"has the suffix {path.suffix!r}", where=str(path), hint="give a .txt, .jsonl or .npy file")
    check_ids(ids, model, str(path))
    windows = _cut(ids, seq_len, samples, bos, path)
    if samples is not None:
        drawn = np.random.default_rng(seed).choice(len(windows), size=samples, replace=False)
        windows = windows[np.sort(drawn)]
    dropped = ids.size - windows.size
    if bos is not None:
        windows = np.concatenate([np.full((len(windows), 1), bos), windows], axis=1)
    windows = np.ascontiguousarray(windows, dtype="<i8")
    return Tokens(windows, fingerprint([str(windows.shape).encode(), windows.tobytes()]), dropped)


def check_ids(ids: npt.NDArray[Any], model: Model, where: str) -> None:
    """Refuse ids that are not in the vocabulary of ``model``: names the worst and its position.

    Raises
    ------
    DataError
        If there is one.
    ModelError
        If ``config.json`` does not give the size of the vocabulary.
    """
    vocabulary = model.config.get("vocab_size")
    if not isinstance(vocabulary, int):
        raise ModelError(f"vocab_size is {vocabulary!r}, expected a number", where=str(model.path / "config.json"))
    if ids.size == 0:
        return
    for worst, bad in ((ids.argmax(), ids.max() >= vocabulary), (ids.argmin(), ids.min() < 0)):
        if bad:
            at = np.unravel_index(worst, ids.shape)
            raise DataError(
                f"token id {ids[at]} at position {list(map(int, at))} is not in the vocabulary of {vocabulary}",
                where=where,
                hint="use the tokenizer that belongs to this model",
            )


def _load_ids(path: Path) -> npt.NDArray[Any]:
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


def _read_text(path: Path) -> list[str]:
    try:
        return [path.read_text(encoding="utf-8-sig")]
    except UnicodeDecodeError as cause:
        raise DataError(f"is not UTF-8 text ({cause.reason} at byte {cause.start})", where=str(path)) from cause


def _read_jsonl(path: Path) -> list[str]:
    documents = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as cause:
            raise DataError(f"is not JSON ({cause})", where=f"{path}:{number}") from cause
        text = record.get("text") if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise DataError(
                'has no "text" string', where=f"{path}:{number}", hint='write {"text": "..."} in every line'
            )
        documents.append(text)
    return documents


def _tokenize(documents: list[str], folder: Path) -> tuple[npt.NDArray[np.int64], int | None]:
    """One stream of ids of all documents, and the BOS id if the tokenizer adds one."""
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(
            "has no tokenizer files",
            where=str(folder),
            hint="copy them from the model's source, or give token ids (.npy)",
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as cause:  # the tokenizers library raises bare Exception
        raise ModelError(f"the tokenizer cannot be loaded ({cause})", where=str(folder)) from cause
    # verbose=False: a stream is longer than the model's context by intent.
    options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    ids = tokenizer(documents, **options)["input_ids"] if documents else []
    stream = np.concatenate([np.asarray(part, np.int64) for part in ids] or [np.empty(0, np.int64)])
    adds_bos = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return stream, int(tokenizer.bos_token_id) if adds_bos else None


def _cut(ids: npt.NDArray[Any], seq_len: int, samples: int | None, bos: int | None, path: Path) -> npt.NDArray[Any]:
    """``[windows, seq_len]`` (one less with a BOS to come) out of a stream or of ready windows."""
    if ids.ndim == 2 and ids.size and ids.shape[1] != seq_len:
        raise DataError(
            f"holds windows of {ids.shape[1]} tokens, asked for were {seq_len}",
            where=str(path),
            hint=f"ask for seq_len {ids.shape[1]}, or give a 1-D stream",
        )
    width = seq_len if bos is None else seq_len - 1
    needed = (samples or 1) * width
    if ids.size < needed:
        raise DataError(
            f"is empty, {needed} tokens are needed" if ids.size == 0 else f"has {ids.size} tokens, {needed} are needed",
            where=str(path),
            hint=f"{samples or 1} windows of {seq_len} were asked for"
            + (" (one is the BOS token)" if bos is not None else ""),
        )
    return ids[: ids.size // width * width].reshape(-1, width) if ids.ndim == 1 else ids
