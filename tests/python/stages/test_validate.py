"""`validate`: plans are measured, and the one with the least loss is written, whatever the prices say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import prismaquant as pq
from prismaquant.errors import ArgumentError
from prismaquant.files.polish import Polish
from prismaquant.pipeline.validation import validated
from prismaquant.planning import Request
from support import tiny_models
from support.hand_made import model_of, plan, sensitivity_of

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "data"
FEW: dict[str, Any] = {
    "data": EXAMPLES / "calibration.txt",
    "samples": 4,
    "price_samples": 4,
    "seq_len": 32,
    "activations": "auto",
}
MENU = ("NVFP4A16", "FP8_DYNAMIC", "BF16")


def _measured(losses):
    """A measurement that knows the loss of a plan by its schemes."""

    def measure(made):
        schemes = [unit.scheme for unit in made.units]
        kl = losses(schemes)
        return Polish(made.model, made.fingerprint, "best", None, None, 2 * kl, kl, None, None, True, ())

    return measure


def _case(units=4):
    model = model_of([[(64, 128)]] * units)
    sensitivity = sensitivity_of(model, [{"NVFP4A16": 1.0, "FP8_DYNAMIC": 0.5, "BF16": 0.0}] * units)
    request = Request(bpw=9, schemes=MENU)
    return model, sensitivity, request, plan(model, sensitivity, bpw=9)


def test_the_plan_is_kept_where_it_is_the_best():
    case = _case()
    prices = {"NVFP4A16": 1.0, "FP8_DYNAMIC": 0.5, "BF16": 0.0}
    found = validated(*case, 3, _measured(lambda schemes: sum(map(prices.get, schemes))), polish=True)
    (chosen,) = (each for each in found if each.chosen)
    assert (chosen.name, chosen.plan) == ("plan", case[3])
    assert [each.plan.bytes for each in found] == sorted(each.plan.bytes for each in found)
    assert {each.name for each in found} >= {"plan", "frontier"}
    assert all(each.kl == pytest.approx(each.plan.predicted_kl) for each in found)


def test_a_uniform_build_that_measures_better_is_taken():
    case = _case()
    found = validated(*case, 1, _measured(lambda schemes: len(set(schemes))), polish=True)
    (chosen,) = (each for each in found if each.chosen)
    assert chosen.name == "NVFP4A16"  # of equals the one with the fewest bytes
    assert chosen.plan.bytes < case[3].bytes


def test_without_the_polish_the_priced_builds_are_compared():
    case = _case()
    found = validated(*case, 1, _measured(lambda _: 1.0), polish=False)
    assert {each.kl for each in found} == {2.0}


def test_uniform_builds_that_break_another_limit_are_not_tried():
    model = model_of([[(64, 128)]] * 2)
    sensitivity = sensitivity_of(model, [{"NVFP4": 4.0, "NVFP4A16": 1.0, "BF16": 0.0}] * 2)
    asked: dict[str, Any] = {"schemes": ("NVFP4", "NVFP4A16", "BF16"), "activations": "auto", "a16_share": 0.5}
    made = plan(model, sensitivity, bpw=5, **asked)
    request = Request(bpw=5, **asked)
    found = validated(model, sensitivity, request, made, 1, _measured(lambda _: 1.0), polish=True)
    assert {each.name for each in found} == {"plan", "NVFP4"}
    free = replace(request, a16_share=None)
    found = validated(model, sensitivity, free, replace(made, a16_limit=None), 1, _measured(lambda _: 1.0), polish=True)
    assert {each.name for each in found} == {"plan", "NVFP4", "NVFP4A16"}


def test_quantize_writes_the_plan_that_measured_best(tmp_path):
    source = tiny_models.build("llama", tmp_path / "source", tokenizer=True)
    report = pq.quantize(source, tmp_path / "out", bpw=10, validate=2, **FEW)
    names = [each.name for each in report.validated]
    assert "plan" in names
    assert "NVFP4" in names
    (chosen,) = (each for each in report.validated if each.chosen)
    assert report.plan == chosen.plan
    assert chosen.kl == min(each.kl for each in report.validated)
    written = report.export.manifest.polish
    assert chosen.kl == (written.kl_after if written.accepted else written.kl_before)
    assert report.verify.ok


@pytest.mark.parametrize(
    "arguments", [{"schemes": ["NVFP4A16"]}, {"bpw": 10, "preset": "scale_sweep"}, {"bpw": 10, "validate": -1}]
)
def test_what_cannot_be_validated_is_refused_before_any_work(arguments, tmp_path):
    source = tiny_models.build("llama", tmp_path / "source", tokenizer=True)
    with pytest.raises(ArgumentError, match="validate"):
        pq.quantize(source, tmp_path / "out", **{"validate": 2, **arguments})
    assert not (tmp_path / "out.work").exists()
