"""Several sources in one draw: `shares` says how many windows come from which, `draw` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prismaquant.errors import DataError
from prismaquant.streaming.sources import DEFAULT

if TYPE_CHECKING:
    import numpy.typing as npt

    from prismaquant.streaming.packing import Packed
    from prismaquant.streaming.sources import Source

__all__ = ["Drawn", "draw", "shares"]


def shares(sources: Sequence[Source], samples: int | None) -> list[int | None]:
    """How many windows to draw from each source; ``None``: all it has.

    A source with a number gives exactly that many. The others share the rest by weight; what rounding leaves goes to
    the largest remainders, among equals to the first.

    Raises
    ------
    DataError
        The numbers add up to more than ``samples``, or to less and there is no other source, or leave one without.
    """
    if samples is None:
        return [source.windows for source in sources]
    rest = samples - sum(source.windows or 0 for source in sources)
    sharing = [index for index, source in enumerate(sources) if source.windows is None]
    if rest < len(sharing) or (rest and not sharing):
        named = ", ".join(source.name for source in sources)
        left = f", and {len(sharing)} without n are to share the rest" if sharing else ""
        raise DataError(
            f"the windows asked for by n= add up to {samples - rest}, needed are {samples}{left}",
            where=named,
            hint="change the numbers, or leave out n= of one source to take the rest from it",
        )
    counts = [source.windows for source in sources]
    total = sum(sources[index].weight for index in sharing)
    exact = {index: (rest * sources[index].weight / total) for index in sharing}
    floors = {index: int(value) for index, value in exact.items()}
    by_remainder = sorted(sharing, key=lambda index: floors[index] - exact[index])  # stable: the first of equals first
    for index in by_remainder[: rest - sum(floors.values())]:
        floors[index] += 1
    for index in sharing:
        if floors[index] == 0:
            raise DataError(
                f"its weight {sources[index].weight:g} of {total:g} gives no window of {rest}",
                where=sources[index].name,
                hint="leave the source out, or ask for more windows",
            )
        counts[index] = floors[index]
    return counts


@dataclass(frozen=True, slots=True)
class Drawn:
    """Windows of one source, int64 ``[windows, seq_len]``; the first ``with_bos`` start with a BOS that was added."""

    source: Source
    packed: Packed
    windows: npt.NDArray[np.int64]
    with_bos: int

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """The tokens of the data in them, one after the other."""
        return np.concatenate([self.windows[: self.with_bos, 1:].ravel(), self.windows[self.with_bos :].ravel()])


def draw(source: Source, packed: Packed, count: int | None, generator: np.random.Generator) -> Drawn:
    """``count`` windows, without replacement and in the order of the data; ``None``: all.

    Raises
    ------
    DataError
        The source has fewer: says how many tokens it has, and how many are needed.
    """
    if len(packed.windows) < (count or 1):
        raise _too_short(source, packed, count or 1)
    if count is None:
        return Drawn(source, packed, packed.windows, packed.with_bos)
    drawn = np.sort(generator.choice(len(packed.windows), size=count, replace=False))
    return Drawn(source, packed, packed.windows[drawn], int((drawn < packed.with_bos).sum()))


def _too_short(source: Source, packed: Packed, count: int) -> DataError:
    seq_len = packed.windows.shape[1]
    needed = count * (seq_len - packed.adds_bos)
    has = "is empty" if packed.tokens == 0 else f"has {packed.tokens} tokens"
    if packed.tokens >= needed:  # several files, each with a tail that fills no window
        has += f", of which {packed.windows.size - packed.with_bos} fill windows"
    bos = " (one is the BOS token)" if packed.adds_bos else ""
    hint = f"{count} windows of {seq_len} tokens{bos} are drawn; name more text, or ask for fewer or shorter ones"
    if source.name == DEFAULT:
        hint = f"the built-in text has {len(packed.windows)} windows of {seq_len}; name text of your own (--data FILE)"
    return DataError(
        f"{has}, {needed} {'tokens ' if packed.tokens == 0 else ''}are needed",
        where=source.name,
        hint=hint,
    )
