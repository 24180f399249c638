"""Plans: the cheapest choice within the budget, proven; uniform plans; sensitivities that do not belong."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from prismaquant.errors import ArgumentError, BudgetError, FormatError, StageFileError
from prismaquant.files import plan as plan_file
from prismaquant.formats import get_scheme, stored_bytes
from support.hand_made import model_of, plan, sensitivity_of

SHAPE = (64, 128)
MENU = ("NVFP4A16", "FP8_DYNAMIC", "BF16")


def _random_case(seed):
    """Five units of one to three Linears with prices that mostly, not always, fall with the bytes."""
    rng = np.random.default_rng(seed)
    shapes = [[(int(8 * rng.integers(1, 9)), 16 * int(rng.integers(1, 9)))] * int(rng.integers(1, 4)) for _ in range(5)]
    model = model_of(shapes)
    prices = [
        {"NVFP4A16": float(rng.exponential(1.0)), "FP8_DYNAMIC": float(rng.exponential(0.1)), "BF16": 0.0}
        for _ in shapes
    ]
    return model, sensitivity_of(model, prices)


def _brute_force(sensitivity, budget):
    best = float("inf")
    for choice in itertools.product(*(unit.candidates for unit in sensitivity.units)):
        if sum(candidate.bytes for candidate in choice) <= budget:
            best = min(best, sum(candidate.prices["directional"] for candidate in choice))
    return best


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("bpw", [5.5, 6.25, 8.6, 11.0, 16.0])
def test_the_plan_is_the_best_of_all_and_proves_it(seed, bpw):
    model, sensitivity = _random_case(seed)
    made = plan(model, sensitivity, bpw=bpw)
    assert made.bytes <= made.budget
    assert made.predicted_kl == pytest.approx(_brute_force(sensitivity, made.budget), rel=1e-9, abs=1e-15)
    assert made.lower_bound == pytest.approx(made.predicted_kl, rel=1e-9, abs=1e-15)
    assert made.predicted_kl == pytest.approx(sum(unit.price for unit in made.units), rel=1e-9, abs=1e-15)


def test_the_bytes_are_those_that_are_stored():
    model, sensitivity = _random_case(1)
    made = plan(model, sensitivity, bpw=7)
    for unit, planned in zip(model.units, made.units, strict=True):
        scheme = get_scheme(planned.scheme)
        assert planned.name == unit.name
        assert planned.linears == tuple(linear.name for linear in unit.linears)
        assert planned.bytes == sum(stored_bytes(scheme, x.rows, x.columns) for x in unit.linears)
    assert made.bytes == sum(unit.bytes for unit in made.units)
    assert made.bpw == 8 * made.bytes / sum(unit.parameters for unit in model.units)


def test_a_size_is_a_budget_too():
    model = model_of([[SHAPE], [SHAPE]], passthrough_bytes=5000)
    sensitivity = sensitivity_of(model, [{"NVFP4A16": 3.0, "BF16": 0.0}, {"NVFP4A16": 2.0, "BF16": 0.0}])
    one_each = 64 * 64 + 64 * 8 + 4 + 2 * 64 * 128
    made = plan(model, sensitivity, size=5000 + one_each, schemes=("NVFP4A16", "BF16"))
    assert [unit.scheme for unit in made.units] == ["BF16", "NVFP4A16"]
    assert made.budget == one_each
    made = plan(model, sensitivity, size=5000 + one_each - 1, schemes=("NVFP4A16", "BF16"))
    assert [unit.scheme for unit in made.units] == ["NVFP4A16", "NVFP4A16"]


def test_the_smallest_budget_of_all_has_a_plan():
    model, sensitivity = _random_case(2)
    with pytest.raises(BudgetError) as caught:
        plan(model, sensitivity, bpw=1)
    minimum = caught.value.minimum
    made = plan(model, sensitivity, size=minimum)
    assert made.bytes == made.budget == minimum
    with pytest.raises(BudgetError):
        plan(model, sensitivity, size=minimum - 1)


def test_the_same_question_has_the_same_answer_and_survives_its_file(tmp_path):
    model, sensitivity = _random_case(3)
    first = plan(model, sensitivity, bpw=6)
    assert plan(model, sensitivity, bpw=6) == first
    plan_file.write(tmp_path / "plan.json", first)
    assert plan_file.read(tmp_path / "plan.json") == first


def test_bf16_outside_the_menu_is_only_for_units_that_nothing_fits():
    model = model_of([[SHAPE], [(64, 24)]])
    sensitivity = sensitivity_of(model, [{"NVFP4A16": 3.0, "BF16": 0.0}] * 2)
    made = plan(model, sensitivity, bpw=16, schemes=["NVFP4A16"])
    assert [unit.scheme for unit in made.units] == ["NVFP4A16", "BF16"]
    (note,) = made.notes
    assert (note.code, note.unit) == ("columns-not-divisible", "u1")
    assert note.text.startswith("stays BF16 (NVFP4A16: ")
    assert "24" in note.text


def test_a_unit_that_one_scheme_does_not_fit_takes_another():
    model = model_of([[SHAPE], [(64, 24)]])
    sensitivity = sensitivity_of(model, [{"NVFP4A16": 3.0, "FP8_DYNAMIC": 1.0, "BF16": 0.0}] * 2)
    made = plan(model, sensitivity, bpw=6)
    assert [unit.scheme for unit in made.units] == ["NVFP4A16", "FP8_DYNAMIC"]
    (note,) = made.notes
    assert note.text.startswith("can only be FP8_DYNAMIC or BF16 (NVFP4A16: ")


def test_siblings_that_differ_in_what_fits_stay_together():
    model = model_of([[SHAPE, (64, 24)]])
    made = plan(model, schemes=["NVFP4A16"])
    assert [unit.scheme for unit in made.units] == ["BF16"]
    assert "u0.l1" in made.notes[0].text


@pytest.mark.parametrize("schemes", [["NVFP4A16"], ["NVFP4A16", "BF16"], "NVFP4A16", ["NVFP4A16", "NVFP4A16"]])
def test_a_menu_of_one_scheme_needs_nothing_else(schemes):
    model = model_of([[SHAPE], [(64, 24)], [SHAPE, SHAPE]])
    made = plan(model, schemes=schemes)
    assert [unit.scheme for unit in made.units] == ["NVFP4A16", "BF16", "NVFP4A16"]
    assert [note.code for note in made.notes] == ["columns-not-divisible"]
    assert (made.price, made.budget, made.predicted_kl, made.lower_bound) == (None, None, None, None)
    assert {unit.price for unit in made.units} == {None}
    assert made.bytes == 3 * (64 * 64 + 64 * 8 + 4) + 2 * 64 * 24


def test_a_uniform_plan_says_what_a_sensitivity_expects_of_it():
    model = model_of([[SHAPE], [(64, 24)]])
    sensitivity = sensitivity_of(model, [{"NVFP4A16": 3.0, "BF16": 0.0}] * 2)
    made = plan(model, sensitivity, schemes=["NVFP4A16"])
    assert [unit.price for unit in made.units] == [3.0, 0.0]
    assert (made.predicted_kl, made.price, made.budget) == (3.0, "directional", None)


def test_bf16_alone_is_a_plan():
    assert [unit.scheme for unit in plan(model_of([[SHAPE]]), schemes=["BF16"]).units] == ["BF16"]


@pytest.mark.parametrize(("dtype", "notes"), [("BF16", []), ("F16", ["rounded-to-bf16"]), ("F32", ["rounded-to-bf16"])])
def test_weights_that_lose_bits_in_bf16_are_noted(dtype, notes):
    made = plan(model_of([[SHAPE]], dtype=dtype), schemes=["BF16"])
    assert [note.code for note in made.notes] == notes
    assert all(dtype in note.text for note in made.notes)


def test_bf16_of_a_bf16_source_has_no_loss_to_measure():
    model = model_of([[SHAPE]])
    made = plan(model, sensitivity_of(model, [{"NVFP4A16": 3.0}]), bpw=16, schemes=("NVFP4A16", "BF16"))
    assert [(unit.scheme, unit.price) for unit in made.units] == [("BF16", 0.0)]


def _error(kind, model, sensitivity=None, **options):
    with pytest.raises(kind) as caught:
        plan(model, sensitivity, **options)
    return str(caught.value)


def test_questions_that_are_not_complete_are_refused():
    model = model_of([[SHAPE]])
    assert "no budget, and a menu of 2 schemes (NVFP4A16, FP8_DYNAMIC); give bpw" in _error(ArgumentError, model)
    assert "a plan for 5 bpw needs a sensitivity; make one with probe" in _error(ArgumentError, model, bpw=5)
    assert "schemes is empty" in _error(ArgumentError, model, schemes=[])


def test_unknown_names_list_the_known_ones():
    model, sensitivity = _random_case(0)
    text = _error(FormatError, model, schemes=["NVFP4A17"])
    assert "unknown scheme 'NVFP4A17'" in text
    assert "did you mean 'NVFP4A16'?" in text
    text = _error(FormatError, model, sensitivity, bpw=6, price="directionl")
    assert re.search(r"unknown price 'directionl'; known: directional; did you mean 'directional'\?", text)
    assert "unknown preset 'scale-sweep'" in _error(FormatError, model, sensitivity, bpw=6, preset="scale-sweep")


def test_a_sensitivity_of_another_model_or_preset_is_refused():
    model, sensitivity = _random_case(0)
    other = replace(sensitivity, model="sha256:" + "b" * 64)
    assert "was measured on another model (sha256:bbbbbbbbbbbb" in _error(StageFileError, model, other, bpw=6)
    text = _error(StageFileError, model, sensitivity, bpw=6, preset="rtn")
    assert "preset 'scale_sweep', the plan asks for 'rtn'" in text
    fewer = replace(sensitivity, units=sensitivity.units[1:])
    assert "u0: the sensitivity has no such unit" in _error(StageFileError, model, fewer, bpw=6)


def test_a_scheme_that_was_not_measured_is_named_with_the_way_to_measure_it():
    model = model_of([[SHAPE]])
    sensitivity = sensitivity_of(model, [{"NVFP4A16": 3.0}])
    text = _error(StageFileError, model, sensitivity, bpw=9)
    assert text.startswith("u0: the sensitivity has no price for scheme FP8_DYNAMIC; probe with schemes that include")
    assert text.endswith("'FP8_DYNAMIC' (--schemes)")
    rounded = model_of([[SHAPE]], dtype="F32")
    sensitivity = sensitivity_of(rounded, [{"NVFP4A16": 3.0}])
    assert "no price for scheme BF16" in _error(
        StageFileError, rounded, sensitivity, bpw=9, schemes=("NVFP4A16", "BF16")
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e-9])
def test_a_price_that_is_no_price_is_refused_by_name(value):
    model = model_of([[SHAPE], [SHAPE]])
    sensitivity = sensitivity_of(model, [{"NVFP4A16": 3.0}, {"NVFP4A16": value}])
    text = _error(StageFileError, model, sensitivity, bpw=9, schemes=("NVFP4A16", "BF16"))
    assert text.startswith(f"u1: price 'directional' of scheme NVFP4A16 is {value}, expected a finite number >= 0")


def test_bytes_that_differ_from_what_is_stored_are_refused():
    model, sensitivity = _random_case(0)
    unit = sensitivity.units[0]
    wrong = replace(unit, candidates=(replace(unit.candidates[0], bytes=7), *unit.candidates[1:]))
    text = _error(StageFileError, model, replace(sensitivity, units=(wrong, *sensitivity.units[1:])), bpw=6)
    assert "counts 7 bytes for scheme NVFP4A16, it takes" in text
