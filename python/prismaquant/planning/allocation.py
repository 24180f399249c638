"""`allocate`: the knapsack under the plan, for people with prices of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prismaquant.errors import ArgumentError, Error
from prismaquant.quantity import parse_bytes

__all__ = ["Allocation", "Constraint", "allocate"]


@dataclass(frozen=True, slots=True)
class Constraint:
    """A further limit: the uses of the chosen candidates must not sum to more than ``limit``.

    Attributes
    ----------
    uses
        For each item, for each of its candidates, what it takes: an integer that is not negative.
    limit
        Of the sum.
    """

    uses: Sequence[Sequence[int]]
    limit: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """Result of `allocate`.

    Attributes
    ----------
    choice
        For each item, the index of its chosen candidate.
    bytes
        Their sum; never over the budget.
    loss
        Their sum.
    lower_bound
        No choice within the budget and the constraints has less loss, up to ``tolerance``.
    tolerance
        What the rounding of the sums can account for.
    uses
        Of each constraint: the sum of what is used.
    """

    choice: tuple[int, ...]
    bytes: int
    loss: float
    lower_bound: float
    tolerance: float = 0.0
    uses: tuple[int, ...] = ()

    @property
    def gap(self) -> float:
        """How much better, at most, another choice could be: 0 where this one is proven best."""
        return max(0.0, self.loss - self.lower_bound - self.tolerance)


def allocate(
    items: Sequence[Sequence[tuple[int, float]]], budget: int | str, *, constraints: Sequence[Constraint] = ()
) -> Allocation:
    """Choose one candidate of each item: the least sum of losses whose bytes fit, proven.

    An exact multiple-choice knapsack in integer bytes (convex hulls, Lagrange multiplier, search of the core; after
    Pisinger 1995, "A minimal algorithm for the multiple-choice knapsack problem"). With constraints that bind, the gap
    is proven, and mostly not 0.

    Parameters
    ----------
    items
        What has to be decided as one each: a sequence of candidates ``(bytes, loss)``. Losses are any additive quantity
        that is to be small, bytes any that is limited.
    budget
        Bytes of all chosen candidates, or a text such as ``"20GiB"``.
    constraints
        Further limits on other quantities.

    Raises
    ------
    ArgumentError
        ``items`` or ``constraints`` have another form, or an item has no candidates.
    NumericError
        A loss is negative or not finite, or bytes are negative; names item and candidate.
    BudgetError
        Nothing fits; ``minimum`` is the smallest budget that would do.

    Examples
    --------
    >>> allocate([[(4, 1.0), (8, 0.1)], [(4, 3.0), (8, 0.5)]], 12).choice
    (0, 1)
    """
    from prismaquant import _core

    try:
        sizes = [[size for size, _ in item] for item in items]
        losses = [[loss for _, loss in item] for item in items]
        limits = [(constraint.uses, constraint.limit) for constraint in constraints]
        if [] in sizes:
            raise ArgumentError(f"item {sizes.index([])} has no candidates", hint="an item needs at least one")
        if limits:
            found = _core.allocate_constrained(sizes, losses, parse_bytes(budget), limits)
        else:
            found = _core.allocate(sizes, losses, parse_bytes(budget))
    except (TypeError, ValueError, AttributeError) as cause:
        if isinstance(cause, Error):
            raise
        raise ArgumentError(
            "items or constraints are of another form",
            hint="an item is a sequence of pairs (integer bytes, loss), a constraint a Constraint(uses, limit)",
        ) from cause
    return Allocation(
        choice=tuple(found["choice"]),
        bytes=int(found["bytes"]),
        loss=float(found["loss"]),
        lower_bound=float(found["lower_bound"]),
        tolerance=float(found.get("tolerance", 0.0)),
        uses=tuple(found.get("uses", ())),
    )
