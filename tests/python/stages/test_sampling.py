"""``--data self``: the model writes its own calibration text, the same each time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prismaquant.errors import ArgumentError, DataError, ModelError, RefusedError
from prismaquant.model import Model, open_model
from prismaquant.streaming import read_tokens, sampling
from support.texts import BUNDLED
from support.tiny_models import build


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(build("llama", tmp_path_factory.mktemp("self") / "model", tokenizer=True))


@pytest.fixture(scope="module")
def without_bos(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = build("llama", tmp_path_factory.mktemp("self") / "model", bos_token_id=None)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(200)), "top_k": 1}))
    return open_model(folder)


def test_windows_start_with_bos_and_are_the_same_each_time(model: Model) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (read_tokens("self", model, samples=17, seq_len=4, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(state, torch.random.get_rng_state())
    assert first.ids.shape == (17, 4)
    assert (first.ids[:, 0] == 0).all()
    assert first.dropped == 0
    assert first == again
    assert first.fingerprint != other.fingerprint
    assert len({tuple(window) for window in first.ids}) == 17


def test_without_bos_they_start_anywhere_and_settings_of_the_folder_do_not_matter(without_bos: Model) -> None:
    tokens = read_tokens("self", without_bos, samples=20, seq_len=6)
    assert len(set(tokens.ids[:, 0])) > 10
    assert len(np.unique(tokens.ids)) > 60  # neither ended by an id of the list, nor greedy


def test_it_mixes_with_files(model: Model) -> None:
    text = BUNDLED.parents[1] / "data" / "calibration.txt"
    tokens = read_tokens(["self:n=3", text], model, samples=8, seq_len=12)
    assert tokens.summary is not None
    assert tokens.summary.by_source == (("self", 3), (str(text), 5))
    assert len(read_tokens("self:n=2", model, samples=None, seq_len=12).ids) == 2


def test_the_bundled_model_writes_likely_text() -> None:
    """It learned its tokens unevenly, and says them so."""
    summary = read_tokens("self", open_model(BUNDLED), samples=8, seq_len=16).summary
    assert summary is not None
    assert summary.common[0].count > 3


def test_a_model_too_large_for_the_memory_is_refused(model: Model, monkeypatch) -> None:
    monkeypatch.setattr(sampling, "machine_memory", lambda: 4 * model.nbytes - 1)
    with pytest.raises(RefusedError, match=r"sampling from it takes about .* of memory, .* may be used; give text"):
        read_tokens("self", model, samples=1, seq_len=12)
    monkeypatch.setattr(sampling, "machine_memory", lambda: 4 * model.nbytes)
    read_tokens("self", model, samples=1, seq_len=12)


def test_what_cannot_be_sampled_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="self: has no end; say how many windows: self:n=64"):
        read_tokens("self", model, samples=None, seq_len=12)
    with pytest.raises(DataError, match="self:split=train: has no splits"):
        read_tokens("self:split=train", model, samples=4, seq_len=12)
    broken = open_model(build("llama", tmp_path / "model"))
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="transformers cannot sample from it"):
        read_tokens("self", broken, samples=1, seq_len=12)


def test_a_file_of_that_name_is_a_file(model: Model, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "a.txt").write_text("The river froze. " * 20)
    assert read_tokens("self", model, samples=None, seq_len=12).ids[0, 0] == 0
