"""Rooms see only the rooms that the design allows: import-linter for Python, an include reader for C++.

Both are also shown a copy of the code with one forbidden line in it, which they must find.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from support.include_reader import ROOMS, violations

#: Runs import-linter on the source folder that PYTHONPATH names, whatever is installed (editable) beside it.
LINT = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]
from importlinter.cli import lint_imports_command
lint_imports_command()
"""


def lint_imports(source: Path, config: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LINT, "--config", str(config), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def python_copy(root: Path, tmp_path: Path) -> Path:
    """A folder with a copy of the package, to be spoilt."""
    shutil.copytree(
        root / "python" / "prismaquant",
        tmp_path / "prismaquant",
        ignore=shutil.ignore_patterns("__pycache__", "*.so", "include"),
    )
    return tmp_path


def test_python_imports_follow_the_arrows(root: Path, tmp_path: Path) -> None:
    result = lint_imports(root / "python", root / "pyproject.toml", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("files/record.py", "import prismaquant.model"),
        ("model/units.py", "from prismaquant.rendering.render import render"),
        ("formats.py", "from prismaquant.codec import get_codec"),
        ("codec/storage.py", "from prismaquant.exporting import schemes"),
        ("codec/storage.py", "def late():\n    import torch"),
        ("rendering/render.py", "from prismaquant import streaming"),
        ("planning/run.py", "from prismaquant.exporting.run import export"),
        ("evaluation/run.py", "import prismaquant.calibration.run"),
        ("exporting/run.py", "import prismaquant.pipeline"),
        ("quantity.py", "def late():\n    import prismaquant.formats"),
        ("planning/run.py", "import torch"),
        ("model/units.py", "def late():\n    from transformers import AutoModel"),
        ("rendering/render.py", "import rich"),
    ],
)
def test_a_forbidden_import_is_found(root: Path, python_copy: Path, file: str, line: str) -> None:
    path = python_copy / "prismaquant" / file
    path.write_text(f"{path.read_text()}\n{line}\n")
    result = lint_imports(python_copy, root / "pyproject.toml", python_copy)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"prismaquant.{file[:-3].replace('/', '.')} -> " in result.stdout


def test_every_room_has_its_place_in_the_contract(root: Path) -> None:
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    named = {room.strip() for layer in layers for room in layer.replace("|", ":").split(":")}
    package = root / "python" / "prismaquant"
    rooms = {f"prismaquant.{path.stem}" for path in package.glob("*.py") if path.stem != "__init__"}
    rooms |= {f"prismaquant.{path.parent.name}" for path in package.glob("*/__init__.py")}
    assert named | {"prismaquant.environment"} == rooms  # that one is a leaf: it imports the compiled module only
    assert imported(package / "environment.py") & {"prismaquant", "torch", "numpy"} == {"prismaquant"}


def test_torch_is_imported_in_three_rooms_only(root: Path) -> None:
    """The contract forbids it to most rooms even through others; here also directly to those that may call them."""
    package = root / "python" / "prismaquant"
    for path in package.rglob("*.py"):
        room = path.relative_to(package).parts[0]
        if room not in ("streaming", "calibration", "evaluation"):
            assert not imported(path) & {"torch", "transformers", "compressed_tensors"}, path


def imported(path: Path) -> set[str]:
    """First names of everything that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.fixture
def headers_copy(root: Path, tmp_path: Path) -> Path:
    """A folder with a copy of the headers and the bindings, to be spoilt."""
    for folder in ("include", "bindings"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_includes_follow_the_arrows(root: Path) -> None:
    assert violations(root) == []
    rooms = {path.name for path in (root / "include" / "prismaquant").iterdir() if path.is_dir()}
    assert rooms <= set(ROOMS)
    assert rooms >= {"core", "formats", "simd", "codec", "linalg", "solver", "allocator", "io", "adapt"}


HOUSE = "include/prismaquant/"


@pytest.mark.parametrize(
    ("file", "line", "found"),
    [
        ("core/error.hpp", '#include "prismaquant/formats/bf16.hpp"', "core may not include formats"),
        ("formats/fp8.hpp", '#include "prismaquant/codec/codec.hpp"', "formats may not include codec"),
        ("formats/fp8.hpp", "#include <prismaquant/simd/lanes.hpp>", "formats may not include simd"),
        ("codec/codec.hpp", '#  include "prismaquant/solver/rtn.hpp"', "codec may not include solver"),
        ("allocator/hull.hpp", '#include "prismaquant/formats/bf16.hpp"  // why', "allocator may not include formats"),
        ("solver/rtn.hpp", '#include "prismaquant/io/recipe.hpp"', "solver may not include io"),
        ("io/recipe.hpp", '#include "prismaquant/codec/codec.hpp"', "io may not include codec"),
        ("linalg/backend.hpp", '#include "prismaquant/solver/rtn.hpp"', "linalg may not include solver"),
        ("prismaquant.hpp", '#include "prismaquant/linalg/eigen_backend.hpp"', "top may not include linalg"),
        ("adapt/xtensor.hpp", '#include "prismaquant/formats/format.hpp"', "adapt may not include formats"),
        ("solver/rtn.hpp", '#include "prismaquant/prismaquant.hpp"', "solver may not include prismaquant.hpp"),
        ("prismaquant.hpp", '#include "prismaquant/io/recipe.hpp"', "top may not include io"),
        ("prismaquant.hpp", '#include "prismaquant/adapt/xtensor.hpp"', "top may not include adapt"),
        ("version.hpp", '#include "prismaquant/core/error.hpp"', "top may not include core"),
        ("codec/codec.hpp", "#include <xsimd/xsimd.hpp>", "only simd may include xsimd"),
        ("codec/codec.hpp", "#include <xtensor/xarray.hpp>", "only adapt may include xtensor"),
        ("core/error.hpp", "#include <nlohmann/json.hpp>", "only io may include nlohmann"),
        ("solver/rtn.hpp", "#include <Eigen/Dense>", "only linalg may include Eigen"),
        ("solver/rtn.hpp", "#include <cblas.h>", "only linalg may include cblas.h"),
        ("solver/rtn.hpp", "#include <lapacke.h>", "only linalg may include lapacke.h"),
        ("core/error.hpp", "#include <pybind11/pybind11.h>", "only bindings may include pybind11"),
        ("codec/codec.hpp", "#include <xmmintrin.h>", "only core/fp_environment.hpp may include it"),
        ("codec/codec.hpp", "#include <immintrin.h>", "only simd/lanes.hpp may include it"),
        ("codec/codec.hpp", "#include <sys/mman.h>", "neither of the standard library nor"),
        ("codec/codec.hpp", '#include "quantized.hpp"', "neither of the standard library nor"),
        ("codec/codec.hpp", '#include "../core/error.hpp"', "neither of the standard library nor"),
        ("codec/codec.hpp", "#include HEADER_OF_MY_CHOICE", "neither of the standard library nor"),
        ("codec/codec.hpp", '#include "prismaquant/codec/gone.hpp"', "does not exist"),
        ("newroom/thing.hpp", "", "there is no room for it"),
        ("drawer.hpp", "", "there is no room for it"),
        ("../../bindings/bind.hpp", "#include <nlohmann/json.hpp>", "only io may include nlohmann"),
        (
            "../../bindings/bind.hpp",
            '#include "prismaquant/prismaquant.hpp"',
            "bindings may not include prismaquant.hpp",
        ),
    ],
)
def test_a_forbidden_include_is_found(headers_copy: Path, file: str, line: str, found: str) -> None:
    path = headers_copy / HOUSE / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{path.read_text() if path.exists() else ''}\n{line}\n")
    [message] = violations(headers_copy)
    assert message.startswith(file.removeprefix("../../"))
    assert found in message


def test_lines_that_include_nothing_are_not_taken_for_includes(headers_copy: Path) -> None:
    path = headers_copy / HOUSE / "core" / "error.hpp"
    path.write_text(path.read_text() + '\n// #include <Eigen/Dense>\nchar const* text = "#include <cblas.h>";\n')
    assert violations(headers_copy) == []
