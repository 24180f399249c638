"""Files of every release load for ever. Each release adds a folder; none is ever changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prismaquant.files import evaluation, manifest, plan, sensitivity

RELEASES = sorted((Path(__file__).parents[2] / "data" / "files").iterdir())


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def release(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_every_release_has_one_file_of_each_kind(release: Path) -> None:
    assert {path.name for path in release.iterdir()} >= {
        "evaluation.json",
        "manifest.json",
        "recipe.json",
        "sensitivity.safetensors",
    }


def test_sensitivity(release: Path) -> None:
    read = sensitivity.read(release / "sensitivity.safetensors")
    assert read.model.startswith("sha256:")
    assert (read.tokens, read.seq_len, read.probes, read.preset) == (128, 32, 1, "scale_sweep")
    assert set(read.prices) >= {"fisher-trace", "fisher-gram"}
    assert len(read.units) == 8
    names = {linear.name for unit in read.units for linear in unit.linears}
    assert set(read.fisher_rows) == names
    for unit in read.units:
        for linear in unit.linears:
            assert linear.fisher_trace > 0
            assert linear.input_amax > 0
            rows = read.fisher_rows[linear.name]
            assert (rows.dtype, rows.shape) == (np.float32, (linear.rows,))
        prices = {each.scheme: each.prices["fisher-gram"] for each in unit.candidates}
        assert prices["BF16"] == 0 < prices["FP8_DYNAMIC"]
        assert ("NVFP4A16" in prices) == ("down_proj" not in unit.name)


def test_recipe(release: Path) -> None:
    read = plan.read(release / "recipe.json")
    assert {unit.scheme for unit in read.units} == {"NVFP4A16", "FP8_DYNAMIC", "BF16"}
    assert sum(unit.bytes for unit in read.units) == read.bytes
    assert read.budget is not None
    assert read.bytes <= read.budget
    assert read.predicted_kl == pytest.approx(sum(unit.price or 0 for unit in read.units))
    assert [note.code for note in read.notes] == ["columns-not-divisible"] * 2


def test_manifest(release: Path) -> None:
    read = manifest.read(release / "manifest.json")
    assert read.plan == plan.read(release / "recipe.json")
    assert {linear.name for linear in read.linears} == {name for unit in read.plan.units for name in unit.linears}
    assert read.tensor_bytes > read.plan.bytes
    assert 0 < read.bits_per_parameter < 16


def test_evaluation(release: Path) -> None:
    read = evaluation.read(release / "evaluation.json")
    assert 0 < read.kl.low < read.kl.value < read.kl.high
    assert 0 < read.top1.low < read.top1.value < read.top1.high <= 1
    assert (read.tokens, read.seq_len) == (256, 32)


def test_the_files_of_one_release_belong_together(release: Path) -> None:
    model = sensitivity.read(release / "sensitivity.safetensors").model
    assert plan.read(release / "recipe.json").model == model
    assert evaluation.read(release / "evaluation.json").source == model
