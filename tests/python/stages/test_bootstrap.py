"""The bootstrap interval: what it covers, and that it can be repeated."""

from __future__ import annotations

import numpy as np
import pytest

from prismaquant.errors import ArgumentError
from prismaquant.evaluation.bootstrap import bootstrap_mean


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    samples = np.random.default_rng(0).gamma(2.0, 0.5, size=(300, 64))  # skewed, as KL is; mean 1
    intervals = [bootstrap_mean(sample, seed=1, resamples=500) for sample in samples]
    covered = np.mean([interval.low <= 1 <= interval.high for interval in intervals])
    assert 0.90 <= covered <= 0.98


def test_the_interval_of_many_windows_is_the_normal_one() -> None:
    sample = np.random.default_rng(0).normal(5, 2, size=400)
    estimate = bootstrap_mean(sample)
    error = sample.std() / np.sqrt(len(sample))
    assert estimate.value == pytest.approx(sample.mean(), rel=1e-12)
    assert estimate.low == pytest.approx(sample.mean() - 1.96 * error, abs=0.1 * error)
    assert estimate.high == pytest.approx(sample.mean() + 1.96 * error, abs=0.1 * error)


def test_the_level_is_the_share_between_the_ends() -> None:
    sample = np.random.default_rng(0).normal(size=100)
    half, most = bootstrap_mean(sample, level=0.5), bootstrap_mean(sample, level=0.95)
    assert most.low < half.low < half.high < most.high


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    sample = np.random.default_rng(0).normal(size=20)
    assert bootstrap_mean(sample, seed=3) == bootstrap_mean(sample, seed=3)
    assert bootstrap_mean(sample, seed=3) != bootstrap_mean(sample, seed=4)


def test_equal_windows_have_an_interval_of_no_width() -> None:
    estimate = bootstrap_mean([0.25] * 5)
    assert (estimate.value, estimate.low, estimate.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("values", [[], [1.0], [[1.0, 2.0], [3.0, 4.0]]])
def test_one_window_is_refused(values: list[float]) -> None:
    with pytest.raises(ArgumentError, match="at least two windows"):
        bootstrap_mean(values)
