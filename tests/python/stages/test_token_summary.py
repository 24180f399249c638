"""What was drawn is counted and said; data that is one token again and again is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from prismaquant.errors import DataError
from prismaquant.model import Model, open_model
from prismaquant.streaming import read_tokens
from prismaquant.streaming.summary import Frequent
from support.texts import BUNDLED, TEXT, write


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model(BUNDLED)


def test_numbers_of_ids(model: Model, tmp_path: Path) -> None:
    write(tmp_path / "a.npy", np.array([7, 8, 7, 9] * 5 + [3]))
    write(tmp_path / "b.npy", np.array([7, 5] * 8))
    found = read_tokens([tmp_path / "a.npy", f"{tmp_path / 'b.npy'}:n=2"], model, samples=6, seq_len=4).summary
    assert found is not None
    assert (found.documents, found.tokens, found.windows, found.seq_len, found.dropped) == (2, 37, 6, 4, 13)
    assert (found.distinct, found.vocabulary) == (4, 4096)
    assert found.common == tuple(Frequent(*each, None) for each in ((7, 12), (5, 4), (8, 4), (9, 4)))
    assert found.by_source == ((str(tmp_path / "a.npy"), 4), (str(tmp_path / "b.npy"), 2))


def test_text_is_logged_with_its_most_common_tokens(model: Model, tmp_path: Path, caplog) -> None:
    path = write(tmp_path / "a.txt", TEXT)
    with caplog.at_level(logging.INFO, logger="prismaquant"):
        tokens = read_tokens(path, model, samples=4, seq_len=16)
    found = tokens.summary
    assert found is not None
    assert found.tokens == found.dropped + 4 * 15
    assert 0 not in [each.id for each in found.common]  # the BOS that was added
    first, second, third = caplog.messages
    assert first == f"data: 4 windows of 16 tokens (4 of {path})"
    assert second == f"data: {found.tokens} tokens in 1 document, 60 drawn, {found.dropped} dropped"
    assert third.startswith(f"data: {found.distinct} of 4096 token ids occur, most often '")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", np.full(400, 7), r"a\.npy: 100\.0% of the tokens drawn are one, id 7.*; give text like"),
        ("a.npy", np.where(np.arange(400) % 16 == 3, 5, 7), "93.8% of the tokens drawn are one, id 7"),
        ("a.txt", "the the the" + " the" * 400, r"\d\d\.\d% of the tokens drawn are one, id \d+ \(' ?the'\)"),
    ],
)
def test_one_repeated_token_is_refused(model: Model, tmp_path: Path, name, content, message) -> None:
    good = write(tmp_path / "good.txt", TEXT)
    for data in (write(tmp_path / name, content), [good, write(tmp_path / name, content)]):
        with pytest.raises(DataError, match=message):
            read_tokens(data, model, samples=8, seq_len=16)


def test_up_to_nine_tenths_are_no_offence(model: Model, tmp_path: Path) -> None:
    ids = np.where(np.arange(400) % 10 == 3, 5, 7)
    assert read_tokens(write(tmp_path / "a.npy", ids), model, samples=None, seq_len=40).dropped == 0
