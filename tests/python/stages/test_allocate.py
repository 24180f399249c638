"""`pq.allocate`: equal to an integer-programming solver, with pins, ties and further limits; clear errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import csr_matrix

import prismaquant as pq
from prismaquant.errors import ArgumentError, BudgetError, NumericError, ShapeError


def _instance(rng):
    """Items of which some are pinned to one candidate, with losses from few values, so that many choices tie."""
    items = []
    for _ in range(int(rng.integers(2, 25))):
        count = 1 if rng.random() < 0.2 else int(rng.integers(2, 9))
        items.append([(int(size), int(loss) / 8) for size, loss in rng.integers(0, (500, 40), (count, 2))])
    least, most = (sum(pick(item)[0] for item in items) for pick in (min, max))
    return items, int(rng.integers(least, most + 1))


def _highs(items, budget, constraints=()):
    """The least loss by HiGHS, ``None`` if nothing fits."""
    candidates = [pair for item in items for pair in item]
    owner = np.repeat(np.arange(len(items)), [len(item) for item in items])
    one = csr_matrix((np.ones(len(owner)), (owner, np.arange(len(owner)))))
    limits = [([size for size, _ in candidates], budget)]
    limits += [([use for item in c.uses for use in item], c.limit) for c in constraints]
    found = milp(
        [loss for _, loss in candidates],
        constraints=[
            LinearConstraint(one, 1, 1),
            LinearConstraint(np.array([use for use, _ in limits], float), -np.inf, [limit for _, limit in limits]),
        ],
        integrality=np.ones(len(candidates)),
        bounds=(0, 1),
        options={"mip_rel_gap": 0},
    )
    return found.fun if found.success else None


def test_equals_an_integer_programming_solver():
    rng = np.random.default_rng(7)
    for _ in range(1000):
        items, budget = _instance(rng)
        found = pq.allocate(items, budget)
        assert found.loss == pytest.approx(_highs(items, budget), abs=1e-9)
        assert found.gap == 0
        chosen = [item[index] for item, index in zip(items, found.choice, strict=True)]
        assert found.bytes == sum(size for size, _ in chosen) <= budget
        assert found.loss == pytest.approx(sum(loss for _, loss in chosen), abs=1e-9)


def test_further_limits_are_kept_and_the_bound_is_true():
    rng = np.random.default_rng(8)
    binding = 0
    for _ in range(200):
        items, budget = _instance(rng)
        uses = [[int(use) for use in rng.integers(0, 100, len(item))] for item in items]
        least, most = (sum(pick(use) for use in uses) for pick in (min, max))
        constraint = pq.Constraint(uses, int(rng.integers(least, most + 1)))
        truth = _highs(items, budget, [constraint])
        if truth is None:
            with pytest.raises(BudgetError):
                pq.allocate(items, budget, constraints=[constraint])
            continue
        found = pq.allocate(items, budget, constraints=[constraint])
        assert found.uses == (sum(use[index] for use, index in zip(uses, found.choice, strict=True)),)
        assert found.uses[0] <= constraint.limit
        assert found.bytes <= budget
        assert found.lower_bound - 1e-9 <= truth <= found.loss + 1e-9
        assert found.gap <= 1e-9
        binding += found.loss > pq.allocate(items, budget).loss
    assert binding > 50


def test_a_budget_may_be_a_text():
    assert pq.allocate([[(1000, 1.0), (2000, 0.0)]], "2kB").choice == (1,)


@pytest.mark.parametrize(
    ("items", "error", "text"),
    [
        (5, ArgumentError, "an item is a sequence of pairs"),
        ([[4, 5]], ArgumentError, "an item is a sequence of pairs"),
        ([[(4.5, 1.0)]], ArgumentError, "an item is a sequence of pairs"),
        ([[(4, 1.0)], []], ArgumentError, "item 1 has no candidates"),
        ([[(4, 1.0), (2, float("nan"))]], NumericError, "item 0, candidate 1: nan as loss"),
        ([[(4, -1.0)]], NumericError, "item 0, candidate 0: -1 as loss"),
        ([[(-4, 1.0)]], NumericError, "item 0, candidate 0: -4 bytes"),
        ([[(400, 1.0)]], BudgetError, "the smallest choice needs 400"),
    ],
)
def test_what_is_wrong_is_said(items, error, text):
    with pytest.raises(error, match=text):
        pq.allocate(items, 40)


def test_constraints_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match="constraint 0 has 1 uses for 2 candidates"):
        pq.allocate([[(1, 1.0), (2, 0.0)]], 5, constraints=[pq.Constraint([[1]], 5)])
    with pytest.raises(ArgumentError, match="Constraint"):
        pq.allocate([[(1, 1.0)]], 5, constraints=[3])
