"""The knapsack through the compiled module: as good as brute force, within the budget, clear when nothing fits."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismaquant._core import allocate
from prismaquant.errors import BudgetError, Error, NumericError, ShapeError

Items = list[list[tuple[int, float]]]

#: Losses are multiples of 1/8, so their sums are exact and ties are real.
_item = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 80).map(lambda n: n / 8)), min_size=1, max_size=5)
_items = st.lists(_item, max_size=6)


def call(items: Items, budget: int) -> dict[str, object]:
    return allocate([[b for b, _ in item] for item in items], [[loss for _, loss in item] for item in items], budget)


def brute_force(items: Items, budget: int) -> tuple[float, int] | None:
    """The least loss within the budget, and the fewest bytes that reach it."""
    sums = ((sum(loss for _, loss in choice), sum(size for size, _ in choice)) for choice in product(*items))
    return min((pair for pair in sums if pair[1] <= budget), default=None)


@given(items=_items, budget=st.integers(0, 160))
def test_equals_brute_force(items: Items, budget: int) -> None:
    best = brute_force(items, budget)
    if best is None:
        with pytest.raises(BudgetError) as caught:
            call(items, budget)
        assert caught.value.minimum == sum(min(size for size, _ in item) for item in items) > budget
        return
    found = call(items, budget)
    choice = found["choice"]
    assert isinstance(choice, list)
    chosen = [item[index] for item, index in zip(items, choice, strict=True)]
    assert found["bytes"] == sum(size for size, _ in chosen) == best[1]
    assert sum(loss for _, loss in chosen) == best[0]
    assert found["loss"] == found["lower_bound"] == pytest.approx(best[0], rel=1e-12)


def test_the_minimum_of_the_error_is_a_budget_that_works() -> None:
    items: Items = [[(10, 1.0), (30, 0.0)], [(7, 2.0), (5, 9.0)]]
    with pytest.raises(BudgetError, match="the budget is 14 bytes, but the smallest choice needs 15") as caught:
        call(items, 14)
    assert caught.value.minimum == 15
    assert caught.value.maximum is None
    assert caught.value.exit_code == 3
    assert call(items, 15)["choice"] == [0, 1]


def test_a_larger_budget_never_costs_more() -> None:
    rng = np.random.default_rng(2)
    items: Items = []
    for _ in range(60):
        sizes = np.sort(rng.integers(1000, 90_000, 4))
        items.append(list(zip(sizes.tolist(), (rng.random() / sizes**1.5 * 1e6).tolist(), strict=True)))
    least = sum(item[0][0] for item in items)
    most = sum(item[-1][0] for item in items)
    losses = []
    for budget in np.linspace(least, most, 25).astype(int).tolist():
        found = call(items, budget)
        assert least <= found["bytes"] <= budget  # type: ignore[operator]
        assert found["loss"] == found["lower_bound"]
        losses.append(found["loss"])
    assert losses == sorted(losses, reverse=True)  # type: ignore[type-var]
    assert call(items, most)["choice"] == [3] * 60


def test_sizes_of_a_large_model_stay_exact() -> None:
    """Bytes beyond 2^53 would be rounded by a float."""
    size = (1 << 55) + 1
    found = call([[(size, 1.0), (size + 2, 0.5)], [(size, 1.0), (size + 1, 0.75)]], 2 * size + 2)
    assert found["choice"] == [1, 0]
    assert found["bytes"] == 2 * size + 2


def test_nothing_to_choose() -> None:
    found = call([], 0)
    assert found["tolerance"] == pytest.approx(0)
    assert {**found, "tolerance": 0} == {"choice": [], "bytes": 0, "loss": 0, "lower_bound": 0, "tolerance": 0}


@pytest.mark.parametrize(
    ("bytes_", "losses", "budget", "error", "message"),
    [
        ([[1], [2]], [[0.0]], 9, ShapeError, "bytes has 2 items, losses has 1"),
        ([[1], [2, 3]], [[0.0], [0.0]], 9, ShapeError, "item 1: bytes and losses differ in length"),
        ([[1], []], [[0.0], []], 9, Error, "1"),
        ([[1]], [[float("nan")]], 9, NumericError, "loss"),
        ([[1]], [[float("inf")]], 9, NumericError, "loss"),
        ([[1]], [[-0.5]], 9, NumericError, "loss"),
        ([[-1]], [[0.5]], 9, NumericError, "bytes"),
        ([[1 << 61], [1 << 61]], [[0.5], [0.5]], (1 << 63) - 1, NumericError, "bytes"),
        ([[1]], [[0.5]], -1, BudgetError, "the budget is -1 bytes, but the smallest choice needs 1"),
        ([[1.5]], [[0.5]], 9, TypeError, "bytes"),
        ([[1]], [["0.5"]], 9, TypeError, "losses"),
        ([[1]], [[0.5]], 1 << 64, TypeError, "budget"),
    ],
)
def test_bad_arguments(bytes_: object, losses: object, budget: int, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        allocate(bytes_, losses, budget)  # type: ignore[arg-type]
