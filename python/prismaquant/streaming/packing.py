"""`pack`: what a source holds -> windows.

Text is packed: the documents of a source are tokenized without special tokens, joined to one stream, and the stream is
cut into windows. If the model's tokenizer adds a BOS token, every window starts with it (a model that was trained with
one computes nonsense without it) and holds ``seq_len - 1`` tokens of text. Token ids (``.npy``) are used as they are: a
1-D array is a stream that is cut into windows, a 2-D array holds ready windows; no tokenizer is read and no BOS is
added. In a folder, text comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from prismaquant.errors import DataError, ModelError
from prismaquant.streaming.documents import load_ids, read_documents

if TYPE_CHECKING:
    import numpy.typing as npt

    from prismaquant.model import Model
    from prismaquant.streaming.sources import Source
    from prismaquant.streaming.tokenization import Tokenizer

__all__ = ["Packed", "check_ids", "pack"]


@dataclass(frozen=True, slots=True)
class Packed:
    """All windows of a source.

    Attributes
    ----------
    windows
        int64 ``[windows, seq_len]``.
    with_bos
        How many of them, the first ones, start with a BOS token that is not in the data.
    adds_bos
        Whether there would be such windows if there was more text.
    tokens
        Tokens in the data, whether they fill a window or not.
    documents
        Texts and arrays of ids.
    """

    windows: npt.NDArray[np.int64]
    with_bos: int
    adds_bos: bool
    tokens: int
    documents: int


def pack(source: Source, model: Model, tokenizer: Tokenizer, seq_len: int) -> Packed:
    """All windows of ``source``.

    Raises
    ------
    DataError
        A file is broken, of another form, or holds ids that the model does not have.
    ModelError
        There is text, and no tokenizer that can be loaded.
    """
    texts = [path for path in source.files if path.suffix != ".npy"]
    arrays = [path for path in source.files if path.suffix == ".npy"]
    parts = [np.empty((0, seq_len), np.int64)]
    tokens = documents = with_bos = 0
    adds_bos = False
    if texts:
        found = [document for path in texts for document in read_documents(path)]
        stream, bos = tokenizer.stream(found), tokenizer.bos
        check_ids(stream, model, source.name)
        windows = _cut(stream, seq_len if bos is None else seq_len - 1)
        if bos is not None:
            windows = np.concatenate([np.full((len(windows), 1), bos), windows], axis=1)
            with_bos, adds_bos = len(windows), True
        parts.append(windows)
        tokens, documents = stream.size, len(found)
    for path in arrays:
        ids = load_ids(path)
        check_ids(ids, model, str(path))
        if ids.ndim == 2 and ids.size and ids.shape[1] != seq_len:
            raise DataError(
                f"holds windows of {ids.shape[1]} tokens, asked for were {seq_len}",
                where=str(path),
                hint=f"ask for seq_len {ids.shape[1]}, or give a 1-D stream",
            )
        parts.append(_cut(ids.ravel(), seq_len).astype(np.int64))
        tokens, documents = tokens + ids.size, documents + 1
    return Packed(np.concatenate(parts), with_bos, adds_bos, tokens, documents)


def check_ids(ids: npt.NDArray[Any], model: Model, where: str) -> None:
    """Refuse ids that are not in the vocabulary of ``model``: names the worst and its position.

    Raises
    ------
    DataError
        If there is one.
    ModelError
        If ``config.json`` does not give the size of the vocabulary.
    """
    vocabulary = model.text_config.get("vocab_size")
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


def _cut(stream: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    """The full windows of ``stream``; its tail is left out."""
    return stream[: stream.size // width * width].reshape(-1, width)
