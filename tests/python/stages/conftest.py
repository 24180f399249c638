"""A good export, made once, and copies of it to be broken."""

from __future__ import annotations

import shutil

import pytest

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


@pytest.fixture
def broken(mixed, tmp_path):
    """A copy of the export that a test may break."""
    return Mutable(shutil.copytree(mixed, tmp_path / "broken"))
