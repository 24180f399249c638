"""Several sources in one draw: numbers exactly, the rest by weight; a source that is too short is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prismaquant.errors import DataError
from prismaquant.model import Model, open_model
from prismaquant.streaming import read_tokens
from prismaquant.streaming.mixing import shares
from prismaquant.streaming.sources import Source
from support.texts import BUNDLED, TEXT, write


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model(BUNDLED)


def sources(*parts: int | float) -> list[Source]:
    """An int is a number of windows, a float a weight."""
    return [
        Source(f"s{at}", (), windows=part) if isinstance(part, int) else Source(f"s{at}", (), weight=part)
        for at, part in enumerate(parts)
    ]


@pytest.mark.parametrize(
    ("parts", "samples", "expected"),
    [
        ((1.0,), 7, [7]),
        ((3, 1.0), 7, [3, 4]),
        ((1.0, 3.0), 8, [2, 6]),
        ((1.0, 1.0, 1.0), 8, [3, 3, 2]),
        ((1.0, 2.0), 10, [3, 7]),
        ((3, 4), 7, [3, 4]),
        ((0.3, 5, 0.7), 15, [3, 5, 7]),
        ((4, 1.0), None, [4, None]),
    ],
)
def test_shares(parts, samples, expected) -> None:
    assert shares(sources(*parts), samples) == expected


@pytest.mark.parametrize(
    ("parts", "samples", "message"),
    [
        ((3, 3), 7, "s0, s1: the windows asked for by n= add up to 6, needed are 7; .*take the rest from it"),
        ((3, 5), 7, "add up to 8, needed are 7"),
        ((7, 1.0), 7, "add up to 7, needed are 7, and 1 without n are to share the rest"),
        ((1.0, 1000.0), 7, "s0: its weight 1 of 1001 gives no window of 7"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(parts, samples, message) -> None:
    with pytest.raises(DataError, match=message):
        shares(sources(*parts), samples)


def test_windows_of_each_source_follow_each_other(model: Model, tmp_path: Path) -> None:
    for name, start in (("a", 0), ("b", 1000), ("c", 2000)):
        write(tmp_path / f"{name}.npy", np.arange(start, start + 400))
    data = [f"{tmp_path / 'a.npy'}:n=3", f"{tmp_path / 'b.npy'}:weight=2", tmp_path / "c.npy"]
    tokens = read_tokens(data, model, samples=12, seq_len=4)
    assert list(tokens.ids[:, 0] // 1000) == [0] * 3 + [1] * 6 + [2] * 3
    assert tokens.dropped == 1200 - 48
    assert tokens == read_tokens(data, model, samples=12, seq_len=4)
    assert tokens.fingerprint != read_tokens(data, model, samples=12, seq_len=4, seed=1).fingerprint


def test_a_folder_gives_text_before_ids(model: Model, tmp_path: Path) -> None:
    write(tmp_path / "1.npy", np.arange(1, 35))
    write(tmp_path / "2.npy", np.arange(64).reshape(4, 16))
    write(tmp_path / "3.txt", TEXT)
    write(tmp_path / "4.jsonl", '{"text": "Ice."}')
    whole = read_tokens(tmp_path, model, samples=None, seq_len=16)
    alone = read_tokens([tmp_path / "3.txt"], model, samples=None, seq_len=16)
    np.testing.assert_array_equal(whole.ids[: len(alone.ids)], alone.ids)
    np.testing.assert_array_equal(whole.ids[-6:-4].ravel(), np.arange(1, 33))
    np.testing.assert_array_equal(whole.ids[-4:].ravel(), np.arange(64))
    assert whole.dropped == alone.dropped + 3 + 2  # "Ice.", and the tail of the ids


def test_the_source_that_is_too_short_is_named(model: Model, tmp_path: Path) -> None:
    write(tmp_path / "a.npy", np.arange(400))
    write(tmp_path / "b" / "1.npy", np.arange(31))
    write(tmp_path / "b" / "2.npy", np.arange(31))
    data = [tmp_path / "a.npy", f"{tmp_path / 'b'}:n=3"]
    with pytest.raises(DataError, match=r"b: has 62 tokens, of which 32 fill windows, 48 are needed; 3 windows of 16"):
        read_tokens(data, model, samples=8, seq_len=16)
