"""The benchmark of the prices runs, and its numbers are of the units that it names."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from support import tiny_models

pytest.importorskip("torch")
pytest.importorskip("transformers")


def test_prices_are_compared_with_the_kl_of_single_units(root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(root / "benchmarks" / "quality"))
    import prices

    model = tiny_models.build("llama", tmp_path / "model", tokenizer=True)
    out, texts = tmp_path / "prices.json", root / "examples" / "data"
    few = ["--samples", "6", "--price-samples", "8", "--windows", "8", "--seq-len", "32", "--out", str(out)]
    text = ["--calibration", str(texts / "calibration.txt"), "--evaluation", str(texts / "evaluation.txt")]
    monkeypatch.setattr(sys, "argv", ["prices.py", str(model), *text, *few])
    prices.main()
    rows = json.loads(out.read_text())
    assert [row["scheme"] for row in rows] == ["NVFP4A16", "NVFP4", "FP8_DYNAMIC"]
    for row in rows:
        assert len(row["unit_kl"]) == 8
        assert sum(row["unit_kl"].values()) == pytest.approx(row["joint_kl"], rel=0.3)
        predicted = np.array([row["prices"]["directional"][name] for name in row["unit_kl"]])
        assert predicted.sum() == pytest.approx(row["joint_kl"], rel=0.5)
    assert "| directional | all |" in capsys.readouterr().out
