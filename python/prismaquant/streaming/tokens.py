"""`read_tokens`: what the user names as data -> windows of tokens.

sources       which files, and how many windows of each
documents     what is in a file
tokenization  text -> token ids
packing       token ids -> windows
mixing        several sources in one draw
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from prismaquant.errors import ArgumentError
from prismaquant.files.fingerprint import fingerprint
from prismaquant.streaming.mixing import draw, shares
from prismaquant.streaming.packing import pack
from prismaquant.streaming.sampling import sample
from prismaquant.streaming.sources import Source, builtin, parse
from prismaquant.streaming.summary import Summary, check_variety, summarize
from prismaquant.streaming.tokenization import Tokenizer

if TYPE_CHECKING:
    import numpy.typing as npt

    from prismaquant.model import Model
    from prismaquant.types import PathLike

__all__ = ["Tokens", "read_tokens"]

_LOG = logging.getLogger("prismaquant")


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
    summary
        Numbers about them, for people; `read_tokens` has them logged.
    """

    ids: npt.NDArray[np.int64] = field(compare=False)
    fingerprint: str
    dropped: int
    summary: Summary | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        return f"Tokens({self.ids.shape[0]} windows of {self.ids.shape[1]}, {self.dropped} dropped)"


def read_tokens(
    data: PathLike | Sequence[PathLike] | None, model: Model, *, samples: int | None, seq_len: int, seed: int = 0
) -> Tokens:
    """The windows of tokens in ``data``.

    Parameters
    ----------
    data
        A file or a folder, or several: ``.txt`` (UTF-8, one document), ``.jsonl`` (a document in each line,
        ``"text"`` or a list of ``"messages"``, to which the model's chat template is applied), ``.npy`` (integer token
        ids: 1-D a stream, 2-D ready windows, whose width must be ``seq_len``), or a folder of such files. Each may be
        followed by options: ``"a.jsonl:n=128"`` for that many windows of it, ``"b.txt:weight=3"`` for three times the
        share of others, ``"folder:split=train"`` for the files of a split. ``"default"`` is a built-in text,
        ``"self"`` is sampled from the model; ``None`` is ``"default"``, with a remark.
    model
        Its folder holds the tokenizer; its vocabulary bounds the ids.
    samples
        Windows to draw, without replacement and in the order of the data; ``None``: all there are, or ``n``.
    seq_len
        Tokens per window, BOS included.
    seed
        Seed of the draw.

    Raises
    ------
    DataError
        The file is missing, broken, of another kind, too short (says how many tokens it has and how many are needed),
        holds ids that the model does not have, or little but one token again and again.
    RefusedError
        The model is to be sampled from, and does not fit in half of the machine's memory.
    ModelError
        Text was given and the model folder has no tokenizer that can be loaded.
    """
    if seq_len < 2:
        raise ArgumentError(f"seq_len is {seq_len}", hint="a window needs at least 2 tokens")
    if samples is not None and samples < 1:
        raise ArgumentError(f"samples is {samples}", hint="ask for at least 1 window, or None for all")
    sources = _sources(data)
    if not sources:
        raise ArgumentError("is empty", where="data", hint="name at least one file or folder")
    tokenizer, generator = Tokenizer(model.path), np.random.default_rng(seed)
    parts = []
    for source, count in zip(sources, shares(sources, samples), strict=True):
        if source.files:
            packed = pack(source, model, tokenizer, seq_len)
        elif count is None:
            raise ArgumentError("has no end", where=source.name, hint=f"say how many windows: {source.name}:n=64")
        else:
            packed = sample(model, tokenizer, count, seq_len, seed)
        drawn = draw(source, packed, count, generator)
        check_variety(drawn.ids, tokenizer, source.name)
        parts.append(drawn)
    ids = np.ascontiguousarray(np.concatenate([part.windows for part in parts]), dtype="<i8")
    summary = summarize(parts, tokenizer, model.text_config["vocab_size"])
    for line in summary.lines():
        _LOG.info(line)
    return Tokens(ids, fingerprint([str(ids.shape).encode(), ids.tobytes()]), summary.dropped, summary)


def _sources(data: PathLike | Sequence[PathLike] | None) -> list[Source]:
    if data is None:
        _LOG.info("data: no text was named, the built-in one is used; text like what the model will read is better")
        return [builtin()]
    return [parse(spec) for spec in ([data] if isinstance(data, str | os.PathLike) else data)]
