"""Limits: everything that adds up over the units of a plan and must not become too much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prismaquant.errors import BudgetError
from prismaquant.formats import get_scheme
from prismaquant.planning.allocation import Allocation, Constraint, allocate
from prismaquant.planning.budget import check_budget
from prismaquant.planning.serving import active_share, device_bytes, for_units, read_per_token
from prismaquant.quantity import format_bytes, parse_bytes

if TYPE_CHECKING:
    from prismaquant.formats import Scheme
    from prismaquant.model import Model, Unit
    from prismaquant.planning.candidates import Option, UnitOptions
    from prismaquant.planning.menu import Menu
    from prismaquant.planning.request import Question

__all__ = [
    "Limit",
    "a16_limit",
    "a16_operations",
    "byte_limit",
    "cheapest_within_loss",
    "choose",
    "limits_of",
    "operations",
]


@dataclass(frozen=True, slots=True)
class Limit:
    """``uses`` of each option of each unit must not sum to more than ``limit``; ``asked`` is what the caller said."""

    asked: str
    uses: list[list[int]]
    limit: int


def byte_limit(units: Sequence[UnitOptions], budget: int, asked: str = "the budget") -> Limit:
    """The stored bytes of all units."""
    return Limit(asked, [[option.bytes for option in entry.options] for entry in units], budget)


def a16_limit(model: Model, units: Sequence[UnitOptions], menu: Menu) -> tuple[Limit, ...]:
    """The share of the operations that may keep 16-bit activations; none if the menu has no such limit."""
    if menu.share is None:
        return ()
    uses = [[a16_operations(model, entry, get_scheme(x.scheme), menu) for x in entry.options] for entry in units]
    total = sum(operations(model, entry.unit) for entry in units)
    return (Limit(f"a share of {menu.share:g} with 16-bit activations", uses, int(menu.share * total)),)


def limits_of(model: Model, units: Sequence[UnitOptions], question: Question) -> tuple[Limit, ...]:
    """All limits of ``question`` on the bytes of a plan, the strictest byte budget first.

    Raises
    ------
    BudgetError
        One of them alone leaves no plan.
    """
    request, serving = question.request, question.serving

    def uses(of: Callable[[Unit, Option], int]) -> list[list[int]]:
        return [[of(entry.unit, option) for option in entry.options] for entry in units]

    found = []
    for asked in question.budgets:
        check_budget(asked, units, alone=asked.option != "fit" or len(question.budgets) == 1)
    if question.budgets:
        found.append(byte_limit(units, question.budgets[0].bytes, question.asked))
    if serving.memory is not None and serving.tensor_parallel > 1:
        found.append(
            Limit(
                f"{format_bytes(serving.memory)} on each of {serving.tensor_parallel} devices",
                uses(lambda unit, option: device_bytes(model, unit, option.bytes, serving.tensor_parallel)),
                for_units(model, serving),
            )
        )
    if request.max_read is not None:
        others = read_per_token(model, dict.fromkeys((unit.name for unit in model.units), 0))

        def read(unit: Unit, option: Option) -> int:
            part, whole = active_share(model, unit)
            return -(-option.bytes * part // whole)

        found.append(Limit(f"{request.max_read} read per token", uses(read), parse_bytes(request.max_read) - others))
    for limit in found:
        smallest = sum(min(options) for options in limit.uses)
        if smallest > limit.limit:
            raise BudgetError(
                f"{limit.asked}: {limit.limit} bytes are left for the units, the smallest plan needs {smallest}",
                minimum=smallest,
                hint=f"ask for {format_bytes(smallest - limit.limit)} more, or for less beside the weights",
            )
    return tuple(found)


def operations(model: Model, unit: Unit) -> int:
    """Multiplications of one token, of experts those that are chosen."""
    part, whole = active_share(model, unit)
    return unit.parameters * part // whole


def a16_operations(model: Model, entry: UnitOptions, scheme: Scheme, menu: Menu) -> int:
    """Operations that keep 16-bit activations under ``scheme`` although the unit could quantize them; BF16 has none."""
    formats = {row.weight_format for row in menu.of(entry.unit) if row.activations is not None}
    kept = menu.is_kept(scheme) and scheme.weight_format in formats
    return operations(model, entry.unit) if kept else 0


def choose(items: Sequence[Sequence[tuple[int, float]]], limits: Sequence[Limit]) -> Allocation:
    """The least loss within all ``limits``; each item is its options' ``(bytes, price)``."""
    if not limits:
        limits = (_bytes(items, sum(max(item)[0] for item in items)),)
    first, *more = limits
    used = [
        [(use, price) for use, (_, price) in zip(uses, item, strict=True)]
        for uses, item in zip(first.uses, items, strict=True)
    ]
    return allocate(used, first.limit, constraints=[Constraint(limit.uses, limit.limit) for limit in more])


def cheapest_within_loss(
    items: Sequence[Sequence[tuple[int, float]]], max_loss: float, more: Sequence[Limit]
) -> tuple[int, Allocation]:
    """The fewest bytes whose least loss is at most ``max_loss``: the budget, and the choice.

    The least loss never grows with the budget, so bisection finds it, in integer bytes.

    Raises
    ------
    BudgetError
        The most bytes are not enough.
    """

    def best(budget: int) -> Allocation:
        return choose(items, (_bytes(items, budget), *more))

    low, high = sum(min(item)[0] for item in items) - 1, sum(max(item)[0] for item in items)
    found = best(high)
    if found.loss > max_loss:
        raise BudgetError(
            f"no plan of this menu has a predicted loss of {max_loss:g}: the best has {found.loss:.4g}",
            maximum=high,
            hint=f"ask for a max_loss of at least {found.loss:.4g}, or add a scheme with less loss",
        )
    while high - low > 1:
        middle = (low + high) // 2
        tried = best(middle)
        if tried.loss <= max_loss:
            high, found = tried.bytes, tried
        else:
            low = middle
    return found.bytes, found


def _bytes(items: Sequence[Sequence[tuple[int, float]]], budget: int) -> Limit:
    return Limit("the budget", [[size for size, _ in item] for item in items], budget)
