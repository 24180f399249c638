"""The committed texts are what `examples/make_calibration_text.py` makes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from prismaquant.model import open_model
from prismaquant.streaming import read_tokens

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_calibration_text", EXAMPLES / "make_calibration_text.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_first_documents_can_be_sampled_again(script: ModuleType) -> None:
    firsts = script.texts([documents[0] for documents in script.FILES.values()])
    for name, first in zip(script.FILES, firsts, strict=True):
        assert len(first) > 500
        assert (EXAMPLES / "data" / name).read_text(encoding="utf-8").startswith(first + "\n\n")


def test_no_document_is_in_both_files(script: ModuleType) -> None:
    calibration, evaluation = (set(script.FILES[name]) for name in ("calibration.txt", "evaluation.txt"))
    assert (len(calibration), len(evaluation)) == (128, 64)
    assert not calibration & evaluation
    texts = [(EXAMPLES / "data" / name).read_text(encoding="utf-8") for name in ("calibration.txt", "evaluation.txt")]
    lines = [{line for line in text.splitlines() if len(line) > 60} for text in texts]
    assert not lines[0] & lines[1]


@pytest.mark.parametrize(("name", "windows"), [("calibration.txt", 128), ("evaluation.txt", 64)])
def test_the_texts_hold_enough_windows(name: str, windows: int) -> None:
    model = open_model(EXAMPLES / "models" / "tiny-llama")
    tokens = read_tokens(EXAMPLES / "data" / name, model, samples=None, seq_len=256)
    assert len(tokens.ids) >= windows
    assert (tokens.ids[:, 0] == 0).all()
    assert (tokens.ids[:, 1:] > 1).all()  # no BOS or EOS inside
