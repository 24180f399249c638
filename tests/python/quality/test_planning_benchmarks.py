"""The benchmarks of planning run, on small problems, and their tables have a line for everything that they name."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from support import tiny_models

pytest.importorskip("transformers")


def test_planning(root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    planning = importlib.import_module("planning")
    for name, value in {"TENSORS": 200, "SHARDS": 3, "EXPERTS": 16, "LAYERS": 4}.items():
        monkeypatch.setattr(planning, name, value)
    monkeypatch.setattr(planning, "knapsack_lines", lambda _: [])  # large on purpose
    monkeypatch.setattr(sys, "argv", ["planning.py", "--rounds", "1", "--json", str(tmp_path / "lines.json")])
    planning.main()
    lines = json.loads((tmp_path / "lines.json").read_text())
    assert len(lines) == 3
    assert "proven: True, monotone: True" in lines[0]["ratio"]
    assert "plan --fit with prices of 16 units" in capsys.readouterr().out


def test_plans_by_every_score_are_compared(root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(root / "benchmarks" / "quality"))
    allocation = importlib.import_module("allocation")
    model = tiny_models.build("llama", tmp_path / "model", tokenizer=True)
    out, texts = tmp_path / "allocation.json", root / "examples" / "data"
    few = ["--samples", "6", "--price-samples", "4", "--windows", "4", "--seq-len", "32", "--bpw", "7,9"]
    text = ["--calibration", str(texts / "calibration.txt"), "--evaluation", str(texts / "evaluation.txt")]
    monkeypatch.setattr(sys, "argv", ["allocation.py", str(model), *text, *few, "--out", str(out)])
    allocation.main()
    rows = json.loads(out.read_text())
    scores = {row["score"] for row in rows}
    assert {"measured", "directional", "fisher-trace", "ModelOpt's", "auto-round's"} <= scores
    assert len(rows) == 2 * 2 * len(scores)
    assert all(row["kl"] > 0 for row in rows)
    assert len({row["schemes"][0] for row in rows}) > 1  # plans differ
    assert capsys.readouterr().out.count("| native inputs |") == len(scores)
