"""The benchmarks of the time and memory of probe and export run, and print what they measured."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import tiny_models

pytest.importorskip("torch")
pytest.importorskip("transformers")


def run(name: str, arguments: list[str], root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a script of ``benchmarks`` writes into its JSON file."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    module = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    module.main()
    return json.loads(Path(arguments[arguments.index("--json") + 1]).read_text())


def test_time(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model, ids = tiny_models.build("llama", tmp_path / "model"), tmp_path / "ids.npy"
    np.save(ids, np.random.default_rng(0).integers(2, 256, (12, 16)))
    few = ["--samples", "4", "--price-samples", "4", "--seq-len", "16", "--price-probes", "2", "--rounds", "1"]
    arguments = [str(model), "--data", str(ids), *few, "--json", str(tmp_path / "out.json")]
    seconds = run("probe_time", arguments, root, monkeypatch)
    parts = [seconds[name] for name in ("walk", "render", "price")]
    assert all(part > 0 for part in (*parts, seconds["torch"]))
    assert sum(parts) < seconds["total"]
    assert "rendering + pricing" in capsys.readouterr().out


def test_memory(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--depths", "1,2", "--hidden", "64", "--gigabytes", "0", "--windows", "4", "--seq-len", "16"]
    rows = run("memory", [*few, "--json", str(tmp_path / "out.json")], root, monkeypatch)
    assert [row["layers"] for row in rows["growing depth"]] == [1, 2]
    assert all(1e8 < row["peak"] < 4e9 for row in rows["growing depth"])
    assert "growing depth" in capsys.readouterr().out


def test_export(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With PRISMAQUANT_TEST_GIGABYTES=40 on a checkpoint that is larger than most machines' memory."""
    size = os.environ.get("PRISMAQUANT_TEST_GIGABYTES", "0.5")
    few = ["--gigabytes", size, "--copied", "0.4", "--vocabulary", "1000", "--rounds", "1", "--work", str(tmp_path)]
    found = run("export_time", [*few, "--json", str(tmp_path / "out.json")], root, monkeypatch)
    assert found["sparse bytes"] == pytest.approx(float(size) * 1e9, rel=0.3)
    assert 1e8 < found["sparse peak"] < 1e9
    assert found["export seconds"] > 0
    assert found["cp, sha256sum seconds"] > found["cp seconds"] > 0
