"""A runner of commands, and a checkpoint that one of them made."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prismaquant.cli import main
from support import tiny_models


@dataclass(frozen=True)
class Ran:
    """Exit code and what was written, by whatever part of the process."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """All of stdout as one JSON document."""
        return json.loads(self.out)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs a command in this process."""

    def run(*arguments: object) -> Ran:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Ran(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def data(root: Path) -> Path:
    return root / "examples" / "data" / "calibration.txt"


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with a tokenizer. Not to be changed."""
    return tiny_models.build("llama", tmp_path_factory.mktemp("model") / "source", tokenizer=True)


@dataclass(frozen=True)
class Made:
    """What `quantize --json` made: the folder, its work folder, and the document."""

    folder: Path
    work: Path
    document: Any


@pytest.fixture(scope="session")
def made(source: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A mixed checkpoint of `source`. Not to be changed."""
    folder = tmp_path_factory.mktemp("made") / "mixed"
    arguments = [
        "quantize",
        source,
        "-o",
        folder,
        "--bpw",
        10,
        "--data",
        data,
        "--samples",
        4,
        "--price-samples",
        4,
        "--seq-len",
        32,
        "--json",
    ]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main([str(argument) for argument in arguments]) == 0
    return Made(folder, folder.with_name("mixed.work"), json.loads(out.getvalue()))
