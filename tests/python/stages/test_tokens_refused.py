"""`read_tokens`: data that cannot serve is refused by name and position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prismaquant.errors import ArgumentError, DataError, ModelError
from prismaquant.model import Model, open_model
from prismaquant.streaming import read_tokens
from support.texts import BUNDLED, TEXT, write
from support.tiny_models import build


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model(BUNDLED)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.txt",
            "",
            r"is empty, 60 tokens are needed; 4 windows of 16 tokens \(one is the BOS token\) are drawn; name more",
        ),
        ("a.jsonl", "\n", "is empty, 60 tokens are needed"),
        ("a.txt", "Too short.", r"has \d tokens, 60 are needed"),
        ("a.npy", np.arange(63), "has 63 tokens, 64 are needed; 4 windows of 16 tokens are drawn; name more text"),
        ("a.npy", np.zeros((3, 16), int), "has 48 tokens, 64 are needed"),
        ("a.npy", np.zeros((0, 16), int), "is empty, 64 tokens are needed"),
        ("a.npy", np.zeros((8, 12), int), "holds windows of 12 tokens, asked for were 16; ask for seq_len 12"),
        ("a.npy", np.zeros((2, 4, 16), int), r"has shape \[2, 4, 16\]"),
        ("a.npy", np.zeros(80), "holds float64; token ids are integers"),
        ("a.npy", np.zeros(80, bool), "holds bool"),
        ("a.npy", "not an array", "is not an array of token ids"),
        ("a.npy", "", "is not an array of token ids"),
        ("a.npy", np.where(np.arange(80) == 70, 5000, 7), r"token id 5000 at position \[70\] .*vocabulary of 4096"),
        ("a.npy", np.where(np.arange(80) == 3, -2, 7), r"token id -2 at position \[3\]"),
        ("a.npy", np.where(np.arange(80).reshape(5, 16) == 33, 4096, 7), r"token id 4096 at position \[2, 1\]"),
        ("a.npy", np.full(80, 2**64 - 1, np.uint64), "token id 18446744073709551615"),
        ("a.jsonl", '{"text": "a"}\n{"txt": "b"}', 'a.jsonl:2: has no "text" string'),
        ("a.jsonl", '{"text": "a"}\n\n["b"]', 'a.jsonl:3: has no "text" string'),
        ("a.jsonl", '{"text": 5}', 'a.jsonl:1: has no "text" string'),
        ("a.jsonl", '{"text": "a"', "a.jsonl:1: is not JSON"),
        ("a.jsonl", '{"text": "a"}\n{"messages": []}', 'a.jsonl:2: "messages" is no list of messages'),
        ("a.jsonl", '{"messages": [{"role": "user"}]}', 'a.jsonl:1: "messages" is no list of messages'),
        ("a.jsonl", '{"messages": "hello"}', 'a.jsonl:1: "messages" is no list of messages'),
        ("a.csv", "a,b", "has the suffix '.csv'; give a .txt, .jsonl or .npy file"),
    ],
)
def test_bad_data_is_refused(model: Model, tmp_path: Path, name: str, content: str | np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_tokens(write(tmp_path / name, content), model, samples=4, seq_len=16)


def test_pickled_arrays_are_never_opened(model: Model, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="is not an array of token ids"):
        read_tokens(tmp_path / "a.npy", model, samples=None, seq_len=16)


def test_text_in_another_encoding_is_refused(model: Model, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(DataError, match=r"is not UTF-8 text .*byte 3"):
        read_tokens(tmp_path / "a.txt", model, samples=None, seq_len=16)


def test_missing_file_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"b\.txt: there is no such file"):
        read_tokens(tmp_path / "b.txt", model, samples=None, seq_len=16)


def test_text_needs_a_tokenizer_and_ids_do_not(tmp_path: Path) -> None:
    model = open_model(build("llama", tmp_path / "model"))
    with pytest.raises(ModelError, match=r"has no tokenizer files; .*\.npy"):
        read_tokens(write(tmp_path / "a.txt", TEXT), model, samples=None, seq_len=16)
    assert read_tokens(write(tmp_path / "a.npy", np.arange(64)), model, samples=None, seq_len=16).ids.shape == (4, 16)


def test_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = build("llama", tmp_path / "model", tokenizer=True)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="the tokenizer cannot be loaded"):
        read_tokens(write(tmp_path / "a.txt", TEXT), open_model(folder), samples=None, seq_len=16)


def test_tokenizer_of_another_model_is_noticed(tmp_path: Path) -> None:
    folder = build("llama", tmp_path / "model", tokenizer=True)
    small = build("llama", tmp_path / "small")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (small / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(DataError, match="vocabulary of 256; use the tokenizer that belongs to this model"):
        read_tokens(write(tmp_path / "a.txt", TEXT), open_model(small), samples=None, seq_len=16)


@pytest.mark.parametrize("arguments", [{"samples": 0, "seq_len": 16}, {"samples": 4, "seq_len": 1}])
def test_senseless_arguments_are_refused(model: Model, tmp_path: Path, arguments: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match=r"is [01]; "):
        read_tokens(write(tmp_path / "a.txt", TEXT), model, **arguments)


def test_no_data_at_all_is_refused(model: Model) -> None:
    with pytest.raises(ArgumentError, match="data: is empty"):
        read_tokens([], model, samples=4, seq_len=16)
