"""`summarize`: what was drawn from the data, in numbers that show at a glance when something is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prismaquant.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

    from prismaquant.streaming.mixing import Drawn
    from prismaquant.streaming.tokenization import Tokenizer

__all__ = ["Frequent", "Summary", "check_variety", "summarize"]

#: So many ids are named.
_NAMED = 5
#: No text of any language comes near it, not even one of single characters.
_LARGEST_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Frequent:
    """A token id, how often it was drawn, and its text where a tokenizer was at hand."""

    id: int
    count: int
    text: str | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What was drawn. BOS tokens that were added are not counted.

    Attributes
    ----------
    documents, tokens
        In all of the data.
    windows, seq_len
        What was drawn, together and from each source by its name (``by_source``).
    dropped
        Tokens of the data that were not drawn.
    distinct, vocabulary
        How many ids occur among the drawn tokens, of how many that the model has.
    common
        The most common ids, first the most common.
    """

    documents: int
    tokens: int
    windows: int
    seq_len: int
    dropped: int
    distinct: int
    vocabulary: int
    common: tuple[Frequent, ...]
    by_source: tuple[tuple[str, int], ...]

    def lines(self) -> list[str]:
        """For people."""
        drawn = self.tokens - self.dropped
        common = ", ".join(
            f"{each.id if each.text is None else repr(each.text)} {each.count / drawn:.1%}" for each in self.common
        )
        sources = ", ".join(f"{windows} of {name}" for name, windows in self.by_source)
        documents = f"{self.documents} document" + ("" if self.documents == 1 else "s")
        return [
            f"data: {self.windows} windows of {self.seq_len} tokens ({sources})",
            f"data: {self.tokens} tokens in {documents}, {drawn} drawn, {self.dropped} dropped",
            f"data: {self.distinct} of {self.vocabulary} token ids occur, most often {common}",
        ]


def summarize(parts: Sequence[Drawn], tokenizer: Tokenizer, vocabulary: int) -> Summary:
    """The numbers of all that was drawn together."""
    ids, counts = np.unique(np.concatenate([part.ids for part in parts]), return_counts=True)
    common = np.argsort(-counts, kind="stable")[:_NAMED]
    tokens = sum(part.packed.tokens for part in parts)
    return Summary(
        documents=sum(part.packed.documents for part in parts),
        tokens=tokens,
        windows=sum(len(part.windows) for part in parts),
        seq_len=parts[0].windows.shape[1],
        dropped=tokens - int(counts.sum()),
        distinct=len(ids),
        vocabulary=vocabulary,
        common=tuple(Frequent(int(ids[at]), int(counts[at]), tokenizer.text(int(ids[at]))) for at in common),
        by_source=tuple((part.source.name, len(part.windows)) for part in parts),
    )


def check_variety(ids: npt.NDArray[np.int64], tokenizer: Tokenizer, where: str) -> None:
    """Refuse drawn tokens that are nearly all the same: nothing can be measured on them.

    Raises
    ------
    DataError
        Names the token and its share.
    """
    counts = np.bincount(ids)
    most = int(counts.argmax())
    if counts[most] > _LARGEST_SHARE * ids.size:
        text = tokenizer.text(most)
        raise DataError(
            f"{counts[most] / ids.size:.1%} of the tokens drawn are one, id {most}"
            + ("" if text is None else f" ({text!r})"),
            where=where,
            hint="give text like what the model will read",
        )
