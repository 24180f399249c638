"""The package is strictly typed, and a type checker finds the mistakes that a user can make with it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = """
from pathlib import Path

import numpy as np

import prismaquant as pq

weight = np.ones((2, 32), np.float32)
codec: pq.Codec = pq.get_codec("nvfp4")
quantized: pq.Quantized = codec.encode(weight, scale_rule="sweep", global_scale=1.0, threads=2)
bank: pq.Quantized = codec.encode(np.ones((2, 32, 4), np.float32), axis=1, weights=weight[0], out=quantized)
part: pq.Quantized = bank[0]
tensors = pq.Quantized.from_compressed_tensors(quantized.to_compressed_tensors(), "nvfp4").to_compressed_tensors()
dtype: str = tensors["weight_packed"].dtype
codec.decode(quantized, dtype="bfloat16")
snr: float = codec.error(weight, bins=9).snr_db
error: float = codec.squared_error(weight, quantized)
solution: pq.Solution = pq.solve(weight, "nvfp4", preset="rtn")
scale: float | None = pq.shared_global_scale([weight, weight], "nvfp4")
formats: tuple[str, ...] = pq.list_formats()
environment: pq.Environment = pq.doctor()
version: str = pq.__version__
include: str = pq.get_include()
plan: pq.Plan = pq.plan("model", "sensitivity.safetensors", bpw=4.75, schemes=["NVFP4A16", "BF16"])
plan = pq.plan(pq.open(Path("model")), None, size="20GiB")
evaluation: pq.Evaluation = pq.evaluate("out", source="model", data="text.txt")
try:
    pq.verify("out", source=Path("model")).raise_for_failures()
except pq.Error as failure:
    hint: str | None = failure.hint
"""

#: A line that must not pass, and the code of an error that it must give.
BAD = [
    ("pq.plann", "attr-defined"),
    ("pq.Quantised", "attr-defined"),
    ("from prismaquant import calibrate", "attr-defined"),
    ('codec.encode(weight, scale_rule="max")', "arg-type"),
    ('codec.encode(weight, threads="all")', "arg-type"),
    ("codec.encode(weight, 1.0)", "call-arg"),
    ("codec.encode(weight, scale=1.0)", "call-arg"),
    ('codec.encode(weight, axis="rows")', "arg-type"),
    ("codec.encode(weight, out=weight)", "arg-type"),
    ("codec.error(weight).histogram.counts", "union-attr"),
    ('codec.decode(quantized, dtype="float64")', "arg-type"),
    ("codec.decode(weight.tobytes())", "arg-type"),
    ('quantized.format = "mxfp4"', "misc"),
    ("quantized.scales.shape", "union-attr"),
    ("pq.solve(weight)", "call-arg"),
    ('pq.solve(weight, "nvfp4").report.loss', "attr-defined"),
    ('1.0 / pq.shared_global_scale([weight], "nvfp4")', "operator"),
    ('pq.plan("model", bpw="4.75")', "arg-type"),
    ('pq.export("model", "recipe.json")', "call-arg"),
    ('pq.quantize("model", "out", bits=4)', "call-arg"),
    ('pq.evaluate("out", "model", "text.txt")', "call-arg"),
    ("one: int = pq.list_formats()", "assignment"),
    ("from prismaquant._core import encode; encode(weight)", "call-arg"),
]


def mypy(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """mypy with the settings and the cache of the repository: the first run takes a minute, the next ones seconds."""
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--no-color-output", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_the_package_passes_mypy_strict(root: Path) -> None:
    result = mypy(root)
    assert result.returncode == 0, result.stdout + result.stderr
    checked = re.search(r"no issues found in (\d+) source files", result.stdout)
    assert checked is not None
    assert int(checked[1]) > 50


@pytest.fixture(scope="module")
def snippets(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, set[str]]:
    """Line number -> codes of its errors, for GOOD followed by the lines of BAD."""
    path = tmp_path_factory.mktemp("typing") / "snippets.py"
    path.write_text(GOOD + "\n".join(line for line, _ in BAD) + "\n")
    result = mypy(root, str(path))
    assert result.returncode in (0, 1), result.stdout + result.stderr
    errors: dict[int, set[str]] = {}
    for line, code in re.findall(r"snippets\.py:(\d+): error: .*\[([a-z-]+)\]$", result.stdout, re.MULTILINE):
        errors.setdefault(int(line), set()).add(code)
    return errors


def test_right_use_passes(snippets: dict[int, set[str]]) -> None:
    assert {line: codes for line, codes in snippets.items() if line <= GOOD.count("\n")} == {}


@pytest.mark.parametrize(("line", "code"), BAD, ids=[line for line, _ in BAD])
def test_a_mistake_is_found(snippets: dict[int, set[str]], line: str, code: str) -> None:
    number = GOOD.count("\n") + 1 + BAD.index((line, code))
    assert code in snippets.get(number, set())


def test_types_travel_with_the_package(root: Path) -> None:
    assert (root / "python" / "prismaquant" / "py.typed").is_file()
