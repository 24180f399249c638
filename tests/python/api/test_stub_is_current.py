"""The committed stub of the compiled module is the one that the generator makes from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def check(script: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)


@pytest.fixture
def stale_copy(root: Path, tmp_path: Path) -> Path:
    """The generator beside a stub in which the type of one argument is another."""
    script = tmp_path / "bindings" / "make_stubs.py"
    stub = tmp_path / "python" / "prismaquant" / "_core.pyi"
    for path in (script, stub):
        path.parent.mkdir(parents=True)
        text = (root / path.relative_to(tmp_path)).read_text(encoding="utf-8")
        path.write_text(text.replace("def stored_bytes(\n    format: str", "def stored_bytes(\n    format: int"))
    return script


def test_the_stub_is_current(root: Path) -> None:
    result = check(root / "bindings" / "make_stubs.py")
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_stale_stub_is_found(stale_copy: Path) -> None:
    result = check(stale_copy)
    assert result.returncode == 1
    assert "is stale; run: python bindings/make_stubs.py" in result.stdout


def test_every_function_of_the_module_is_in_the_stub(root: Path) -> None:
    from prismaquant import _core

    stub = (root / "python" / "prismaquant" / "_core.pyi").read_text(encoding="utf-8")
    names = {name for name in dir(_core) if not name.startswith("_")}
    classes = {name for name in names if isinstance(getattr(_core, name), type)}
    functions = names - classes
    assert len(functions) > 10
    assert classes == {"TensorView"}
    assert all(f"\nclass {name}:" in stub for name in classes)
    assert all(f"\ndef {name}(" in stub for name in functions)
    assert stub.count("\ndef ") == len(functions)
