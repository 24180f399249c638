"""Bootstrap intervals over windows of text."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prismaquant.errors import ArgumentError
from prismaquant.files.evaluation import Estimate

__all__ = ["bootstrap_mean"]

_BLOCK = 2**20  # windows drawn at a time: 8 MiB of indices


def bootstrap_mean(values: npt.ArrayLike, *, seed: int = 0, resamples: int = 10_000, level: float = 0.95) -> Estimate:
    """The mean of ``values`` with its percentile bootstrap interval.

    Windows are drawn with replacement, not tokens: tokens of one window depend on each other, and an interval over
    tokens would be too narrow. (Efron & Tibshirani, *An Introduction to the Bootstrap*, chapter 13.)

    Parameters
    ----------
    values
        ``[windows]``: one mean per window, all windows of the same length.
    seed
        Seed of the draws: the same values and seed give the same interval.
    resamples
        Number of draws.
    level
        Coverage of the interval.

    Raises
    ------
    ArgumentError
        Fewer than two windows: they say nothing about how windows differ.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) < 2:
        raise ArgumentError(
            f"has shape {list(sample.shape)}, expected one value for each of at least two windows",
            where="values",
            hint="evaluate on more text",
        )
    windows = len(sample)
    draw = np.random.default_rng(seed).integers
    block = max(1, _BLOCK // windows)
    counts = [min(block, resamples - done) for done in range(0, resamples, block)]
    means = np.concatenate([sample[draw(windows, size=(count, windows))].mean(axis=1) for count in counts])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=float(sample.mean()), low=float(low), high=float(high))
