"""A good export, made once, and copies of it to be broken."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from prismaquant.model import Model, open_model
from support import tiny_models
from support.exported import export_mixed
from support.mutations import Mutable


@pytest.fixture(scope="session")
def mixed_source(tmp_path_factory):
    """A random model with biases and a tokenizer."""
    return tiny_models.build("qwen2", tmp_path_factory.mktemp("mixed") / "source", tokenizer=True)


@pytest.fixture(scope="session")
def mixed(mixed_source):
    """Its export, in which every scheme of the menu occurs. Not to be changed."""
    return export_mixed(mixed_source, mixed_source.with_name("out"))


@pytest.fixture(scope="session")
def many_experts(tmp_path_factory) -> Model:
    """Sixteen experts, of which the few tokens of `expert_ids` leave some without any."""
    folder = tmp_path_factory.mktemp("many") / "experts"
    return open_model(tiny_models.build("qwen3_moe", folder, num_experts=16, num_experts_per_tok=1))


@pytest.fixture(scope="session")
def expert_ids() -> np.ndarray:
    """Three windows of sixteen tokens."""
    return np.random.default_rng(1).integers(2, 256, size=(3, 16))


@pytest.fixture
def broken(mixed, tmp_path):
    """A copy of the export that a test may break."""
    return Mutable(shutil.copytree(mixed, tmp_path / "broken"))
