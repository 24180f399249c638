"""How far decoded values are from the weights: sums, and a histogram. Plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prismaquant.types import Array

__all__ = ["ErrorHistogram", "ErrorSummary", "total"]


@dataclass(frozen=True, slots=True)
class ErrorHistogram:
    """How often errors ``decoded - weight`` fall between two neighbours of ``edges``.

    Attributes
    ----------
    edges
        float32 ``[bins + 1]``, evenly from ``-max_error`` to ``max_error`` (all zero if nothing was lost).
    counts
        int64 ``[bins]``.
    """

    edges: Array
    counts: Array


@dataclass(frozen=True, slots=True)
class ErrorSummary:
    """How far decoded values are from the weights.

    Attributes
    ----------
    squared_error, squared_weight
        Sums of ``(decoded - weight)^2`` and of ``weight^2``, in float64.
    max_error
        Largest ``|decoded - weight|``.
    snr_db
        ``10 * log10(squared_weight / squared_error)``; infinite if nothing was lost.
    histogram
        Of the errors, if it was asked for (``bins=`` of `Codec.error`); two summaries are equal without it.
    """

    squared_error: float
    squared_weight: float
    max_error: float
    snr_db: float
    histogram: ErrorHistogram | None = field(default=None, compare=False, repr=False)

    def _repr_html_(self) -> str:
        from prismaquant.codec.html import error_html

        return error_html(self)


def total(parts: Sequence[ErrorSummary]) -> ErrorSummary:
    """The summary of several matrices together."""
    if len(parts) == 1:
        return parts[0]
    error = math.fsum(part.squared_error for part in parts)
    weight = math.fsum(part.squared_weight for part in parts)
    largest = max((part.max_error for part in parts), default=0.0)
    if error == 0:
        return ErrorSummary(error, weight, largest, math.inf)
    return ErrorSummary(error, weight, largest, 10 * math.log10(weight / error) if weight else -math.inf)
