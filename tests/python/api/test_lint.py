"""The code is linted and formatted by the rules of the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDERS = ("python", "bindings", "tests", "examples", "benchmarks")


def ruff(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ruff", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", [["check", "--output-format=concise"], ["format", "--check"]])
def test_ruff_passes(root: Path, command: list[str]) -> None:
    result = ruff(root, *command, *FOLDERS)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_rules_of_the_repository_are_applied(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('import rich\n\nprint("in a library")\n')
    result = ruff(root, "check", "--config", "pyproject.toml", "--output-format=concise", str(path))
    assert {"TID253", "T201", "F401"} <= set(result.stdout.split())
