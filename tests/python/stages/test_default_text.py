"""The built-in text: enough for the default draw, whatever the tokenizer, and never a silent choice."""

from __future__ import annotations

import logging
import re

import pytest

from prismaquant.errors import DataError
from prismaquant.model import Model, open_model
from prismaquant.streaming import read_tokens
from prismaquant.streaming.sources import builtin
from support.texts import BUNDLED

#: Of `probe`: windows that the weights are solved for, that choose ranges, and that set the prices.
DEFAULT_WINDOWS, DEFAULT_LENGTH = 128 + 8 + 32, 512


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model(BUNDLED)


@pytest.fixture(scope="module")
def text() -> str:
    (path,) = builtin().files
    return path.read_text(encoding="utf-8")


def test_it_is_enough_for_the_default_draw(text: str) -> None:
    """Tokenizers split at least where words, numbers and signs meet: no vocabulary is so large that it falls short."""
    pieces = re.findall(r" ?[^\W\d_]+| ?\d+| ?[^\s\w]+\n*|\s+", text)
    assert len(pieces) > DEFAULT_WINDOWS * DEFAULT_LENGTH
    assert len(text.encode()) < 1 << 19


def test_it_is_varied(text: str) -> None:
    paragraphs = text.split("\n\n")
    assert len(paragraphs) > 1500
    assert len(set(paragraphs)) > 0.8 * len(paragraphs)
    assert "\t" not in text
    assert all(part in text for part in ("def ", "SELECT ", "Solution.", "Dear ", "User:", "Serves "))


def test_no_data_is_the_default_with_a_remark(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="prismaquant"):
        named = read_tokens("default", model, samples=20, seq_len=64)
    assert not any("was named" in message for message in caplog.messages)
    with caplog.at_level(logging.INFO, logger="prismaquant"):
        unnamed = read_tokens(None, model, samples=20, seq_len=64)
    assert any("no text was named, the built-in one is used" in message for message in caplog.messages)
    assert named == unnamed
    assert named.summary is not None
    assert named.summary.by_source == (("default", 20),)
    assert named.summary.distinct > 400


def test_what_it_lacks_is_said_in_windows(model: Model) -> None:
    with pytest.raises(
        DataError, match=r"default: has \d+ tokens, .* are needed; the built-in text has \d+ windows of 64"
    ):
        read_tokens("default:n=9000", model, samples=9000, seq_len=64)
