"""A preview prices plain rounding by the Fisher trace, and what is exported from it is what was priced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import prismaquant as pq
from prismaquant.errors import ArgumentError
from prismaquant.files.sensitivity import Sensitivity
from prismaquant.formats import get_scheme
from prismaquant.rendering.render import render
from support import tiny_models

SCHEMES = ("NVFP4", "NVFP4A16", "FP8_DYNAMIC", "BF16")
SETTINGS: dict[str, Any] = {"samples": 6, "seq_len": 16, "schemes": SCHEMES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny_models.build("llama", tmp_path_factory.mktemp("preview") / "model")
    np.save(made.with_name("ids.npy"), np.random.default_rng(0).integers(2, 256, (10, 16)))
    return made


@pytest.fixture(scope="module")
def preview(folder: Path) -> Sensitivity:
    return pq.probe(folder, folder.with_name("ids.npy"), preview=True, **SETTINGS)


def test_the_price_is_the_formula(folder: Path, preview: Sensitivity) -> None:
    assert preview.prices == ("fisher-trace",)
    assert preview.preset == "scale_sweep"
    assert (preview.tokens, preview.price_tokens) == (96, 96)
    model = pq.open(folder)
    for unit, found in zip(model.units, preview.units, strict=True):
        trace = {linear.name: linear.fisher_trace / preview.tokens for linear in found.linears}
        for candidate in found.candidates:
            rendering = render(model, unit, get_scheme(candidate.scheme).weight_format, preset="scale_sweep")
            expected = sum(
                0.5 * trace[linear.name] * rendering.squared_error[linear.name] / linear.parameters
                for linear in unit.linears
            )
            assert candidate.prices["fisher-trace"] == pytest.approx(expected, rel=1e-5, abs=0)


def test_it_has_statistics_and_standard_errors(preview: Sensitivity) -> None:
    assert all(linear.fisher_trace > 0 and linear.input_amax > 0 for unit in preview.units for linear in unit.linears)
    assert all(unit.input_global_scale for unit in preview.units)
    assert preview.standard_error({preview.units[0].name: "NVFP4A16"}, "fisher-trace") > 0


def test_a_plan_from_it_is_exported_without_a_work_folder(folder: Path, preview: Sensitivity, tmp_path: Path) -> None:
    plan = pq.plan(folder, preview, bpw=7.0, price="fisher-trace", schemes=SCHEMES)
    assert plan.preset == "scale_sweep"
    pq.export(folder, plan, tmp_path / "out", sensitivity=preview)
    assert pq.verify(tmp_path / "out", source=folder).ok


def test_its_file_is_used_again_and_not_taken_for_another(folder: Path, tmp_path: Path) -> None:
    data, out = folder.with_name("ids.npy"), tmp_path / "preview.safetensors"
    first = pq.probe(folder, data, preview=True, out=out, **SETTINGS)
    stages: list[str] = []
    again = pq.probe(folder, data, preview=True, out=out, progress=lambda event: stages.append(event.stage), **SETTINGS)
    assert again == first
    assert not stages
    with pytest.raises(pq.errors.StageFileError, match="was made with another"):
        pq.probe(folder, data, out=out, price_samples=2, **SETTINGS)


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"preset": "best"}, "preset 'best' solves for the data"),
        ({"prices": ["kfac"]}, "a preview has one price"),
        ({"work_dir": "work"}, "a preview keeps no renderings"),
    ],
)
def test_what_it_does_not_do_is_refused(options: dict[str, Any], fragment: str, folder: Path) -> None:
    with pytest.raises(ArgumentError, match=fragment):
        pq.probe(folder, folder.with_name("ids.npy"), preview=True, **options)
