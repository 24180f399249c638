"""Bits per weight and folder sizes become bytes; a budget that cannot be met says what could."""

from __future__ import annotations

import re

import pytest

from prismaquant.errors import ArgumentError, BudgetError
from prismaquant.planning.budget import Budget, budgets_of, check_budget
from prismaquant.planning.candidates import unpriced_options
from support.hand_made import menu_of, model_of

SHAPE = (64, 128)
WEIGHTS = 64 * 128


def test_bits_per_weight_count_bytes_of_the_units():
    model = model_of([[SHAPE], [SHAPE, SHAPE]], passthrough_bytes=1000)
    assert budgets_of(model, bpw=4.75, size=None)[0] == Budget(3 * WEIGHTS * 475 // 800, "4.75 bpw")


@pytest.mark.parametrize("bpw", [4.1, 4.6, 5.3, 7.7])
def test_a_decimal_budget_is_taken_as_written(bpw):
    # 80 weights at 4.1 bits are 41 bytes; the nearest binary number to 4.1 is smaller and would give 40.
    model = model_of([[(5, 16)]])
    assert budgets_of(model, bpw=bpw, size=None)[0].bytes == round(bpw * 10)


def test_bits_per_weight_round_down():
    assert budgets_of(model_of([[(1, 3)]]), bpw=5, size=None)[0].bytes == 1


@pytest.mark.parametrize("size", [20_000, "20kB"])
def test_a_size_leaves_what_is_not_passed_through(size):
    model = model_of([[SHAPE]], passthrough_bytes=3000)
    assert budgets_of(model, bpw=None, size=size)[0].bytes == 17_000


def test_no_budget_is_none():
    assert budgets_of(model_of([[SHAPE]]), bpw=None, size=None) == ()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"bpw": 4.75, "size": 1000}, "bpw and size are both given; give one of them"),
        ({"bpw": float("nan"), "size": None}, "bpw is nan, expected a positive number"),
        ({"bpw": float("inf"), "size": None}, "bpw is inf, expected a positive number"),
        ({"bpw": 0.0, "size": None}, "bpw is 0.0, expected a positive number"),
        ({"bpw": None, "size": -1}, "size is -1, expected a positive number of bytes"),
        ({"bpw": None, "size": "big"}, "'big' is not a size"),
    ],
)
def test_a_budget_that_is_no_budget_is_refused(arguments, text):
    with pytest.raises(ArgumentError, match=re.escape(text)):
        budgets_of(model_of([[SHAPE]]), **arguments)


def _options(model, scheme):
    return [unpriced_options(unit, menu_of(scheme)) for unit in model.units]


def test_below_the_minimum_says_the_minimum_and_what_forces_it():
    model = model_of([[(64, 128)], [(64, 24)]])
    units = _options(model, "NVFP4A16")
    quantized = 64 * 64 + 64 * 8 + 4
    kept = 2 * 64 * 24
    with pytest.raises(BudgetError) as caught:
        check_budget(budgets_of(model, bpw=4.0, size=None)[0], units)
    assert caught.value.minimum == quantized + kept
    assert caught.value.maximum == 2 * 64 * (128 + 24)
    bits = 8 * (quantized + kept) / (64 * 152)
    text = str(caught.value)
    assert f"4 bpw is below the minimum of {bits:.4f} bpw ({quantized + kept} bytes of the units)" in text
    assert f"{quantized} bytes are of units in NVFP4A16" in text
    assert f"{kept} bytes are of units in BF16 (1 of them because nothing smaller fits their shape: u1)" in text


def test_the_minimum_that_is_named_works():
    model = model_of([[(64, 128)], [(72, 48)]])
    units = _options(model, "NVFP4A16")
    with pytest.raises(BudgetError) as caught:
        check_budget(budgets_of(model, bpw=4.0, size=None)[0], units)
    bpw = float(re.search(r"at least bpw ([0-9.]+)", str(caught.value))[1])
    check_budget(budgets_of(model, bpw=bpw, size=None)[0], units)

    model = model_of([[(64, 128)], [(72, 48)]], passthrough_bytes=10_000)
    with pytest.raises(BudgetError) as caught:
        check_budget(budgets_of(model, bpw=None, size=12_000)[0], units)
    size = int(re.search(r"at least size ([0-9]+)", str(caught.value))[1])
    check_budget(budgets_of(model, bpw=None, size=size)[0], units)
    with pytest.raises(BudgetError):
        check_budget(budgets_of(model, bpw=None, size=size - 1)[0], units)


def test_a_folder_smaller_than_what_is_passed_through_says_the_smallest_folder():
    model = model_of([[SHAPE]], passthrough_bytes=100_000)
    smallest = 100_000 + 64 * 64 + 64 * 8 + 4
    with pytest.raises(
        BudgetError, match=rf"minimum of a folder of {smallest} bytes .*100000 bytes .* are passed through"
    ):
        check_budget(budgets_of(model, bpw=None, size=50_000)[0], _options(model, "NVFP4A16"))


def test_above_bf16_says_the_maximum():
    model = model_of([[SHAPE]], passthrough_bytes=100)
    units = _options(model, "NVFP4A16")
    check_budget(budgets_of(model, bpw=16, size=None)[0], units)
    check_budget(budgets_of(model, bpw=None, size=100 + 2 * WEIGHTS)[0], units)
    with pytest.raises(
        BudgetError, match=r"17 bpw is above the maximum of 16.0000 bpw .* the model in BF16 fits"
    ) as caught:
        check_budget(budgets_of(model, bpw=17, size=None)[0], units)
    assert caught.value.maximum == 2 * WEIGHTS
    with pytest.raises(BudgetError, match="above the maximum of a folder of 16484 bytes"):
        check_budget(budgets_of(model, bpw=None, size=101 + 2 * WEIGHTS)[0], units)
