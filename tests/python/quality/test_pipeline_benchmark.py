"""The benchmark of the whole pipeline runs, and has a row for every build that it names."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from support import tiny_models

pytest.importorskip("torch")
pytest.importorskip("transformers")


def test_builds_are_measured_before_and_after(root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(root / "benchmarks" / "quality"))
    pipeline = importlib.import_module("pipeline")
    model = tiny_models.build("llama", tmp_path / "model", tokenizer=True)
    out, texts = tmp_path / "pipeline.json", root / "examples" / "data"
    few = [
        "--samples",
        "6",
        "--price-samples",
        "4",
        "--windows",
        "4",
        "--seq-len",
        "32",
        "--bpw",
        "7",
        "--out",
        str(out),
    ]
    text = ["--calibration", str(texts / "calibration.txt"), "--evaluation", str(texts / "evaluation.txt")]
    monkeypatch.setattr(sys, "argv", ["pipeline.py", str(model), *text, *few])
    pipeline.main()
    rows = json.loads(out.read_text())
    assert [row["menu"] for row in rows] == list(pipeline.MENUS)
    for row in rows:
        assert row["bpw"] <= 7
        assert min(row["predicted"], row["after"], row["before"]) > 0
    assert any(row["after"] != row["before"] for row in rows)  # a polish that is not better is dropped
    assert capsys.readouterr().out.count("| NVFP4") == len(pipeline.MENUS)
