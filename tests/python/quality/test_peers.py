"""The comparison with other packages: what is absent or fails is left out with a notice, the rest is judged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

FAKE = """
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
model, _, out, _, recipe = sys.argv[1:]
if recipe == "broken":
    sys.exit("cannot be done")
names = [".self_attn.q_proj.weight", ".mlp.down_proj.weight"]
tensors = load_file(Path(model) / "model.safetensors")
save_file({n: t.float() * 1.05 for n, t in tensors.items() if any(n.endswith(e) for e in names)}, out)
Path(out).with_suffix(".json").write_text('{"processor_seconds": 2.5}')
"""


@pytest.fixture
def compare(root: Path) -> Any:
    """The script as a module."""
    folders = [str(root / "benchmarks" / "peers"), str(root / "benchmarks" / "quality")]
    sys.path[:0] = folders
    try:
        import compare
    finally:
        for folder in folders:
            sys.path.remove(folder)
    return compare


def test_what_is_there_is_judged_and_the_rest_named(
    compare: Any, root: Path, tiny_llama: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    (tmp_path / "fake.py").write_text(FAKE)
    np.save(tmp_path / "ids.npy", np.random.default_rng(0).integers(0, 4096, (4, 32)))
    peers = {
        "fake": (str(tmp_path / "fake.py"), {"scaled": False, "broken": True}),
        "none": ("none.py", {"rtn": False}),
    }
    monkeypatch.setattr(compare, "PEERS", peers)
    evaluation = root / "examples" / "data" / "evaluation.txt"
    arguments = ["compare", tiny_llama, "--calibration", tmp_path / "ids.npy", "--evaluation", evaluation]
    arguments += ["--windows", 2, "--python", f"fake={sys.executable}", "--work", tmp_path, "--json", tmp_path / "j"]
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
    compare.main()
    shown = capsys.readouterr()
    assert "none is left out: no --python none=PYTHON" in shown.err
    assert "fake broken is left out: cannot be done" in shown.err
    document = json.loads((tmp_path / "j").read_text())
    rows = {row["recipe"]: row for row in document["rows"]}
    assert next(iter(rows)) == "scaled"
    assert rows["scaled"]["kl_ratio"] == 1
    assert rows["scaled"]["seconds"] == 2.5
    assert rows["scaled"]["kl_goal"] is None
    assert rows["best"]["kl_goal"] == 0.66
    assert rows["best"]["kl_ratio"] == pytest.approx(rows["best"]["kl"] / rows["scaled"]["kl"])
    assert 0 < rows["best"]["kl"] < rows["rtn"]["kl"]
    assert document["floor"] > 0
    (claim,) = document["claims"]  # of data-free recipes there is a peer, of GPTQ and tuning there is none
    assert claim["ratio"] == pytest.approx(rows["scale sweep"]["kl"] / rows["scaled"]["kl"])
    assert "| prismaquant | best |" in shown.out
