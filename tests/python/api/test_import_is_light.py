"""`import prismaquant` loads nothing heavy; each name, verb and command loads only what it needs.

Looks at ``sys.modules`` of a fresh interpreter, not at a clock.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

#: Everything that costs more than a millisecond to load and is not always needed.
HEAVY = {
    "numpy",
    "torch",
    "transformers",
    "compressed_tensors",
    "safetensors",
    "msgspec",
    "rich",
    "filelock",
    "ml_dtypes",
    "matplotlib",
    "accelerate",
    "tokenizers",
    "huggingface_hub",
    "importlib.metadata",
    "asyncio",
    "inspect",
    "argparse",
    "scipy",
    "threadpoolctl",
    "prismaquant._core",
}
FRAMEWORKS = {"torch", "transformers", "compressed_tensors", "matplotlib", "accelerate"}


def loaded(statement: str) -> set[str]:
    """The modules that ``statement`` loads, beyond those of a bare interpreter in this environment."""
    program = f"""
import sys
before = set(sys.modules)
{statement}
found = sorted(set(sys.modules) - before)
import json
print(json.dumps(found))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_the_probe_sees_what_is_loaded() -> None:
    assert loaded("import numpy") >= {"numpy"}
    assert loaded("import prismaquant.codec") >= {"prismaquant", "prismaquant.codec", "prismaquant.formats"}


def test_import_prismaquant_loads_itself_only() -> None:
    modules = loaded("import prismaquant")
    assert not modules & HEAVY
    assert {name for name in modules if name.startswith("prismaquant")} == {"prismaquant"}


def test_looking_around_loads_nothing() -> None:
    statement = """
import prismaquant as pq
dir(pq), pq.__all__, pq.__doc__, repr(pq)
try:
    pq.plann
except AttributeError:
    pass
"""
    assert not loaded(statement) & HEAVY


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("pq.Error", set()),
        ("pq.list_schemes(), pq.get_scheme('NVFP4')", set()),
        ("pq.__version__", {"prismaquant._core"}),
        ("pq.list_formats(), pq.list_presets(), pq.format_info('nvfp4')", {"prismaquant._core"}),
        ("pq.get_codec, pq.solve, pq.Quantized", set()),
    ],
)
def test_a_name_loads_its_home_only(statement: str, allowed: set[str]) -> None:
    modules = loaded(f"import prismaquant as pq\n{statement}")
    heavy = modules & (HEAVY - {"inspect", "importlib.metadata"})  # of dataclasses; of environment
    assert heavy <= allowed


def test_a_model_is_opened_planned_and_verified_without_torch(tiny_llama: Path) -> None:
    statement = f"""
import prismaquant as pq
model = pq.open({str(tiny_llama)!r})
plan = pq.plan(model, schemes=("FP8_DYNAMIC", "BF16"))
pq.export, pq.verify, pq.Plan, pq.Sensitivity, pq.Evaluation
import prismaquant.exporting, prismaquant.rendering.render, prismaquant.planning
"""
    modules = loaded(statement)
    assert "numpy" in modules
    assert not modules & FRAMEWORKS
    assert "rich" not in modules


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["quantize", "--help"], ["verify", "--help"]])
def test_help_and_version_of_the_command_import_no_numpy(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "prismaquant", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = {
        line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time:")
    }
    assert "argparse" in modules  # the report is read rightly
    assert not modules & (FRAMEWORKS | {"numpy", "rich", "msgspec", "safetensors", "ml_dtypes"})
    assert result.stdout.strip()
