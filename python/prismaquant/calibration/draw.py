"""`split`: which windows of the data serve for what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from prismaquant.errors import ArgumentError, StageFileError
from prismaquant.files import record
from prismaquant.files.fingerprint import fingerprint
from prismaquant.streaming import Tokens

__all__ = ["Draw", "split"]


@dataclass(frozen=True, slots=True)
class Draw:
    """Disjoint windows of one data set, each int64 ``[windows, seq_len]``.

    A solver fits the inputs that it is shown, and on these its errors look smaller than they are: prices, and what else
    is chosen by a measured error, need windows of their own.

    Attributes
    ----------
    statistics
        For the Grams that the solvers take.
    ranges
        For the ranges of quantized inputs; may be empty.
    prices
        For the prices; empty in a preview.
    """

    statistics: npt.NDArray[np.int64]
    ranges: npt.NDArray[np.int64]
    prices: npt.NDArray[np.int64]

    def __repr__(self) -> str:
        return f"Draw({len(self.statistics)} + {len(self.ranges)} + {len(self.prices)} windows)"

    def write(self, path: Path) -> None:
        """Keep the windows in a file."""
        windows = {"statistics": self.statistics, "ranges": self.ranges, "prices": self.prices}
        record.write_atomic(path, save({name: np.ascontiguousarray(ids) for name, ids in windows.items()}))

    @classmethod
    def read(cls, path: Path) -> Draw:
        """The windows in a file.

        Raises
        ------
        StageFileError
            There is none, or it is damaged.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                return cls(*(file.get_tensor(name) for name in ("statistics", "ranges", "prices")))
        except (OSError, SafetensorError) as cause:
            raise StageFileError(
                f"has no windows of a probe ({cause})", where=str(path), hint="probe with this work folder (--work-dir)"
            ) from cause

    @property
    def tokens(self) -> tuple[int, int, int]:
        """Tokens of each."""
        return self.statistics.size, self.ranges.size, self.prices.size

    @property
    def fingerprints(self) -> tuple[str, str]:
        """Of what is solved with, and of what is priced with."""
        priced = np.concatenate([self.ranges, self.prices])
        return _fingerprint(self.statistics), _fingerprint(priced)


def split(tokens: Tokens, *, statistics: int, ranges: int, prices: int, seed: int) -> Draw:
    """Deal the windows of ``tokens``, as many as the three numbers say together.

    Raises
    ------
    ArgumentError
        A number is negative, or there are no windows for statistics.
    """
    if statistics < 1 or prices < 0 or ranges < 0 or statistics + ranges + prices != len(tokens.ids):
        raise ArgumentError(
            f"{len(tokens.ids)} windows cannot be dealt into {statistics} for statistics, {ranges} for ranges of inputs"
            f" and {prices} for prices"
        )
    order = np.random.default_rng([seed, 1]).permutation(len(tokens.ids))
    parts = np.split(order, [statistics, statistics + ranges])
    return Draw(*(tokens.ids[np.sort(part)] for part in parts))


def _fingerprint(ids: npt.NDArray[np.int64]) -> str:
    return fingerprint([str(ids.shape).encode(), np.ascontiguousarray(ids, dtype="<i8").tobytes()])
