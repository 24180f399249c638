"""`max_loss`: the fewest bytes for a loss; prices below zero; which pins force a budget to fail."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from prismaquant.errors import ArgumentError, BudgetError, StageFileError
from support.hand_made import model_of, plan, sensitivity_of

SHAPE = (64, 128)


def _case(seed):
    rng = np.random.default_rng(seed)
    model = model_of([[(8 * int(rng.integers(1, 9)), 16 * int(rng.integers(1, 9)))] for _ in range(5)])
    prices = [
        {"NVFP4A16": float(rng.exponential(1)), "FP8_DYNAMIC": float(rng.exponential(0.1)), "BF16": 0.0}
        for _ in model.units
    ]
    return model, sensitivity_of(model, prices)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("max_loss", [0.3, 1.0, 2.0, 9.0])
def test_no_plan_with_so_little_loss_has_fewer_bytes(seed, max_loss):
    model, sensitivity = _case(seed)
    made = plan(model, sensitivity, max_loss=max_loss)
    choices = itertools.product(*(unit.candidates for unit in sensitivity.units))
    fewest = min(
        sum(candidate.bytes for candidate in choice)
        for choice in choices
        if sum(candidate.prices["directional"] for candidate in choice) <= max_loss
    )
    assert made.predicted_kl <= max_loss
    assert made.bytes == made.budget == fewest


def test_a_loss_that_no_plan_has_names_the_least():
    model = model_of([[SHAPE]])
    sensitivity = sensitivity_of(model, [{"NVFP4A16": 3.0, "FP8_DYNAMIC": 0.5}])
    with pytest.raises(BudgetError, match=r"the best has 0\.5; ask for a max_loss of at least 0\.5"):
        plan(model, sensitivity, max_loss=0.1, schemes=["NVFP4A16", "FP8_DYNAMIC"])


@pytest.mark.parametrize("arguments", [{"max_loss": -1.0}, {"max_loss": float("nan")}, {"max_loss": 1, "bpw": 5}])
def test_a_loss_that_is_none_or_comes_with_a_budget_is_refused(arguments):
    model, sensitivity = _case(0)
    with pytest.raises(ArgumentError, match="max_loss"):
        plan(model, sensitivity, **arguments)


def test_pins_that_force_a_budget_to_fail_are_named():
    model = model_of([[SHAPE], [SHAPE]])
    sensitivity = sensitivity_of(model, [{"NVFP4A16": 3.0, "BF16": 0.0}] * 2)
    with pytest.raises(BudgetError) as caught:
        plan(model, sensitivity, bpw=5, schemes=["NVFP4A16"], pins=["u1=BF16"])
    text = str(caught.value)
    assert "16384 bytes are of units in BF16 (1 of them because they are pinned to it: u1)" in text
    assert text.endswith("or unpin u1")
    least = float(re.search(r"at least bpw ([0-9.]+)", text)[1])
    assert plan(model, sensitivity, bpw=least, schemes=["NVFP4A16"], pins=["u1=BF16"]).units[1].scheme == "BF16"


def _with_sums(value, spread):
    """One price of ``value`` nats per token whose two windows differ by ``spread``."""
    model = model_of([[SHAPE]])
    sensitivity = sensitivity_of(model, [{"NVFP4A16": value, "BF16": 0.0}])
    windows = 128 * np.array([[value - spread / 2, value + spread / 2], [0, 0]], np.float32)
    return model, replace(sensitivity, price_tokens=256, price_sums={"u0/directional": windows})


def test_a_price_below_zero_within_its_noise_is_zero_and_counted():
    model, sensitivity = _with_sums(-0.001, 0.01)
    made = plan(model, sensitivity, bpw=5, schemes=["NVFP4A16", "BF16"])
    assert (made.predicted_kl, made.units[0].price) == (0.0, 0.0)
    assert [note.text for note in made.notes] == ["1 prices are negative within their noise and count as 0"]


def test_a_price_far_below_zero_is_named():
    model, sensitivity = _with_sums(-1.0, 0.01)
    with pytest.raises(StageFileError, match=r"u0: price 'directional' of scheme NVFP4A16 is -1\.0.*standard errors"):
        plan(model, sensitivity, bpw=5, schemes=["NVFP4A16", "BF16"])
