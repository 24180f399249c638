"""The divergence of a build from the source, by the last hidden states of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from prismaquant.streaming.calls import logits
from prismaquant.streaming.divergence import divergence

if TYPE_CHECKING:
    from prismaquant.streaming.skeleton import Skeleton
    from prismaquant.types import Array

__all__ = ["divergences", "mean_and_error"]

#: Most logits that are formed at once, for each of the models (64 MiB in float32).
_MAX_LOGITS = 1 << 24


def divergences(skeleton: Skeleton, source: torch.Tensor, builds: list[torch.Tensor]) -> Array:
    """``KL(source || build)`` summed over the tokens of one window, in nats: float64 ``[builds]``.

    Parameters
    ----------
    source, builds
        Hidden states behind the last layer, float32 ``[seq_len, hidden]``. Head and ``skeleton.rest`` must be filled.
    """
    sums = np.zeros(len(builds))
    step = max(1, _MAX_LOGITS // skeleton.vocabulary)
    for start in range(0, len(source), step):
        rows = slice(start, start + step)
        expected = logits(skeleton, source[rows])
        for index, build in enumerate(builds):
            sums[index] += float(divergence(expected, logits(skeleton, build[rows])).sum(dtype=torch.float64))
    return sums


def mean_and_error(per_window: Array, seq_len: int) -> tuple[float, float | None]:
    """Mean per token of sums over windows, and its standard error; ``None`` for one window."""
    count = len(per_window)
    error = None if count < 2 else float(per_window.std(ddof=1) / np.sqrt(count) / seq_len)
    return float(per_window.mean() / seq_len), error
