"""The frontier equals the best of all plans at every budget; explanations say what the numbers say."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from prismaquant.errors import ArgumentError
from prismaquant.planning import Request, explain, frontier
from support.hand_made import model_of, plan, sensitivity_of

MENU = ("NVFP4A16", "FP8_DYNAMIC", "BF16")


def _case(seed, units=5, windows=8):
    """Random prices, with sums over windows whose mean they are."""
    rng = np.random.default_rng(seed)
    model = model_of([[(8 * int(rng.integers(1, 9)), 16 * int(rng.integers(1, 9)))] for _ in range(units)])
    sums = {
        unit.name: np.vstack([rng.exponential(1, windows), rng.exponential(0.1, windows), np.zeros(windows)])
        for unit in model.units
    }
    prices = [dict(zip(MENU, (float(value) for value in sums[unit.name].mean(1)), strict=True)) for unit in model.units]
    stored = {f"{name}/directional": np.float32(16 * value) for name, value in sums.items()}
    return model, replace(sensitivity_of(model, prices), price_tokens=16 * windows, price_sums=stored)


def _choices(sensitivity):
    for choice in itertools.product(*(unit.candidates for unit in sensitivity.units)):
        yield sum(candidate.bytes for candidate in choice), sum(candidate.prices["directional"] for candidate in choice)


@pytest.mark.parametrize("seed", range(5))
def test_the_optima_are_those_of_all_plans_and_never_get_worse(seed):
    model, sensitivity = _case(seed)
    found = frontier(model, sensitivity, Request(schemes=MENU), points=50)
    every = list(_choices(sensitivity))
    low, high = min(every)[0], max(size for size, _ in every)
    for number, point in enumerate(found.optima):
        budget = low + (high - low) * number // 49
        assert point.bytes <= budget
        assert point.predicted_kl == pytest.approx(min(loss for size, loss in every if size <= budget), abs=1e-12)
        assert point.lower_bound == pytest.approx(point.predicted_kl, abs=1e-12)
    losses = [point.predicted_kl for point in found.optima]
    assert losses == sorted(losses, reverse=True)


def test_the_vertices_are_plans_below_which_no_plan_lies():
    model, sensitivity = _case(7)
    found = frontier(model, sensitivity, Request(schemes=MENU), points=2)
    sizes, losses = ([getattr(point, name) for point in found.vertices] for name in ("bytes", "predicted_kl"))
    for size, loss in _choices(sensitivity):
        if size <= sizes[-1]:
            assert loss >= np.interp(size, sizes, losses) - 1e-12
    for point in found.vertices:
        assert plan(model, sensitivity, size=point.bytes).predicted_kl == pytest.approx(point.predicted_kl)
        assert point.bpw == 8 * point.bytes / sum(unit.parameters for unit in model.units)


def test_the_knee_is_the_vertex_farthest_below_the_chord_and_has_a_band():
    model, sensitivity = _case(3)
    found = frontier(model, sensitivity, Request(schemes=MENU), points=2)
    first, last = found.vertices[0], found.vertices[-1]

    def depth(point):
        x = (point.bytes - first.bytes) / (last.bytes - first.bytes)
        return 1 - x - (point.predicted_kl - last.predicted_kl) / (first.predicted_kl - last.predicted_kl)

    assert found.knee == max(found.vertices, key=depth)
    low, high = found.knee_band
    assert first.bpw <= low <= high <= last.bpw
    assert low < high
    assert found.knee_band == frontier(model, sensitivity, Request(schemes=MENU), points=2).knee_band


def test_without_sums_per_window_there_is_no_band():
    model, sensitivity = _case(3)
    assert frontier(model, replace(sensitivity, price_sums={}), Request(schemes=MENU), points=2).knee_band is None


def test_a_frontier_of_one_plan_is_one_point():
    model, sensitivity = _case(1)
    found = frontier(model, sensitivity, Request(schemes=["BF16"]), points=3)
    assert len(found.vertices) == 1
    assert found.knee == found.vertices[0]
    with pytest.raises(ArgumentError, match="points is 1"):
        frontier(model, sensitivity, Request(schemes=MENU), points=1)


def _explained(seed=2, bpw=7, unit=None, **request):
    model, sensitivity = _case(seed)
    made = plan(model, sensitivity, bpw=bpw, **request)
    return made, explain(model, sensitivity, made, unit=unit)


def test_every_unit_is_explained_by_its_options():
    made, found = _explained()
    assert {unit.name: unit.scheme for unit in found.units} == {unit.name: unit.scheme for unit in made.units}
    for unit in found.units:
        by_scheme = {option.scheme: option for option in unit.options}
        chosen = by_scheme[unit.scheme]
        assert chosen.regret == 0
        for option in unit.options:
            expected = option.price - chosen.price + found.byte_price * (option.bytes - chosen.bytes)
            assert option.regret == pytest.approx(expected, abs=1e-15)
        assert unit.why
        assert 0 <= unit.agreement <= 1
    shares = [unit.agreement for unit in found.units]
    assert shares == sorted(shares)
    assert 0 < found.agreement <= 1
    assert found.regret >= 0


def test_an_option_is_taken_from_the_budget_on_that_is_said():
    model, sensitivity = _case(4)
    made = plan(model, sensitivity, bpw=6)
    parameters = sum(unit.parameters for unit in model.units)
    for unit in explain(model, sensitivity, made, unit=None).units:
        for option in unit.options:
            if option.bpw is None:
                continue
            at = plan(model, sensitivity, size=round(option.bpw * parameters / 8))
            assert next(x.scheme for x in at.units if x.name == unit.name) == option.scheme


def test_one_unit_can_be_asked_for_by_its_name_or_that_of_a_linear():
    for name in ("u3", "u3.l0"):
        _, found = _explained(unit=name)
        assert [unit.name for unit in found.units] == ["u3"]
    with pytest.raises(ArgumentError, match="unknown unit 'u33'; near: u3"):
        _explained(unit="u33")


def test_pins_and_the_menu_are_those_of_the_plan():
    made, found = _explained(schemes=["NVFP4A16", "FP8_DYNAMIC"], pins=["u1=BF16"], bpw=9)
    assert made.pins == ("u1=BF16",)
    by_name = {unit.name: unit for unit in found.units}
    assert [option.scheme for option in by_name["u1"].options] == ["BF16"]
    assert by_name["u1"].why == "it is pinned to BF16"
    assert [option.scheme for option in by_name["u0"].options] == ["NVFP4A16", "FP8_DYNAMIC"]


def test_a_plan_without_prices_cannot_be_explained():
    model, sensitivity = _case(0)
    with pytest.raises(ArgumentError, match="made without prices"):
        explain(model, sensitivity, plan(model, schemes=["NVFP4A16"]), unit=None)
