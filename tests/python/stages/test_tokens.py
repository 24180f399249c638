"""`read_tokens`: text and token ids become windows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from prismaquant.model import Model, open_model
from prismaquant.streaming import read_tokens
from support.texts import BUNDLED, TEXT, write
from support.tiny_models import build

CALIBRATION = BUNDLED.parents[1] / "data" / "calibration.txt"


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model(BUNDLED)


@pytest.fixture(scope="module")
def stream() -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
    return np.array(tokenizer(TEXT, add_special_tokens=False)["input_ids"])


def test_text_is_packed_into_windows_that_start_with_bos(model: Model, stream: np.ndarray, tmp_path: Path) -> None:
    tokens = read_tokens(write(tmp_path / "a.txt", TEXT), model, samples=None, seq_len=16)
    assert tokens.ids.dtype == np.int64
    assert tokens.ids.shape == (len(stream) // 15, 16)
    assert (tokens.ids[:, 0] == 0).all()
    np.testing.assert_array_equal(tokens.ids[:, 1:].ravel(), stream[: tokens.ids.shape[0] * 15])
    assert tokens.dropped == len(stream) % 15


def test_documents_of_jsonl_are_joined(model: Model, stream: np.ndarray, tmp_path: Path) -> None:
    lines = [json.dumps({"text": TEXT, "id": 1}), "", json.dumps({"text": TEXT})]
    tokens = read_tokens(write(tmp_path / "a.jsonl", "\n".join(lines)), model, samples=None, seq_len=32)
    twice = np.concatenate([stream, stream])
    np.testing.assert_array_equal(tokens.ids[:, 1:].ravel(), twice[: tokens.ids.shape[0] * 31])


def test_tokenizer_without_bos_fills_windows_with_text(stream: np.ndarray, tmp_path: Path) -> None:
    folder = build("llama", tmp_path / "model", tokenizer=True)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    tokens = read_tokens(write(tmp_path / "a.txt", TEXT), open_model(folder), samples=None, seq_len=16)
    np.testing.assert_array_equal(tokens.ids.ravel(), stream[: tokens.ids.size])


def test_id_stream_is_cut_as_it_is(model: Model, tmp_path: Path) -> None:
    ids = np.arange(1, 41, dtype=np.uint16)
    tokens = read_tokens(write(tmp_path / "a.npy", ids), model, samples=None, seq_len=16)
    np.testing.assert_array_equal(tokens.ids, ids[:32].reshape(2, 16))
    assert tokens.dropped == 8


def test_ready_windows_are_kept(model: Model, tmp_path: Path) -> None:
    ids = np.arange(1, 41, dtype=np.int32).reshape(5, 8)
    tokens = read_tokens(write(tmp_path / "a.npy", ids), model, samples=None, seq_len=8)
    np.testing.assert_array_equal(tokens.ids, ids)
    assert tokens.dropped == 0


def test_draw_is_a_seeded_subset_in_the_order_of_the_data(model: Model, tmp_path: Path) -> None:
    path = write(tmp_path / "a.npy", np.arange(400).reshape(100, 4))
    first, again, other = (read_tokens(path, model, samples=10, seq_len=4, seed=seed) for seed in (1, 1, 2))
    assert first == again
    np.testing.assert_array_equal(first.ids, again.ids)
    assert first.fingerprint != other.fingerprint
    assert (np.diff(first.ids[:, 0]) > 0).all()
    np.testing.assert_array_equal(first.ids % 4, np.tile(np.arange(4), (10, 1)))
    assert first.dropped == 360


def test_fingerprint_sees_ids_and_shape(model: Model, tmp_path: Path) -> None:
    ids = np.arange(64)
    prints = [
        read_tokens(write(tmp_path / "a.npy", content), model, samples=None, seq_len=seq_len).fingerprint
        for content, seq_len in ((ids, 8), (ids.reshape(8, 8), 8), (ids, 16), (ids[::-1].copy(), 8))
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    assert prints[0].startswith("sha256:")


@pytest.mark.parametrize(
    ("arguments", "expected", "dropped"),
    [
        ((16, 64, 3), "sha256:324c5e08c7bc6ebc073ce140a71367548edb4724710619953fc20df87e01e2ed", 31830),
        ((None, 128, 0), "sha256:76d34972dffabad9cf9b30b0a5a7b8078c67b321298caea7fbcef99cc2991273", 72),
    ],
)
def test_one_file_gives_the_windows_it_always_gave(model: Model, arguments, expected: str, dropped: int) -> None:
    """Kept sensitivities and renderings are found by the fingerprint of the windows."""
    samples, seq_len, seed = arguments
    for data in (CALIBRATION, [CALIBRATION], f"{CALIBRATION}:weight=2"):
        tokens = read_tokens(data, model, samples=samples, seq_len=seq_len, seed=seed)
        assert (tokens.fingerprint, tokens.dropped) == (expected, dropped)
