"""`explain`: why units have the schemes that they have, what the next byte would buy, and how sure that is."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from prismaquant.errors import ArgumentError
from prismaquant.formats import DEFAULT_MENU
from prismaquant.planning.candidates import UnitOptions, price_of, with_measured
from prismaquant.planning.frontier import Vertices, hull
from prismaquant.planning.limits import a16_limit, byte_limit, choose
from prismaquant.planning.menu import menu_of
from prismaquant.planning.pins import with_pinned
from prismaquant.planning.resampling import RESAMPLES, resampled_items
from prismaquant.planning.run import items_of, priced_units

if TYPE_CHECKING:
    from prismaquant.files.plan import Plan
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model

__all__ = ["Explanation", "OptionExplanation", "UnitExplanation", "explain"]


@dataclass(frozen=True, slots=True)
class OptionExplanation:
    """One scheme that a unit could have.

    Attributes
    ----------
    scheme, bytes, price
        As in the plan.
    standard_error
        Of the price; ``None``: not known.
    regret
        What taking it would cost at the price of a byte: its price and bytes against those of the unit's scheme.
        Below zero only where whole units do not fill the budget exactly.
    bpw
        Budget from which on it is taken, as the hull of all plans says; ``None``: never.
    """

    scheme: str
    bytes: int
    price: float
    standard_error: float | None
    regret: float
    bpw: float | None


@dataclass(frozen=True, slots=True)
class UnitExplanation:
    """Why a unit has its scheme.

    Attributes
    ----------
    name, linears, scheme
        As in the plan: the Linears share the scheme because engines fuse them.
    why
        A sentence.
    agreement
        Share of the resamples of the windows in which the unit gets the same scheme; ``None``: not known.
    options
        What it could have, in increasing bytes.
    """

    name: str
    linears: tuple[str, ...]
    scheme: str
    why: str
    agreement: float | None
    options: tuple[OptionExplanation, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Result of `explain`.

    Attributes
    ----------
    byte_price
        What the next byte would save, nats per token: the slope of the hull of all plans at the budget.
    agreement
        Mean of the units', by their bytes.
    regret
        How much worse the plans of the resamples are than this one by the prices of all windows: mean, as a share of
        its predicted loss.
    units
        The unit that was asked for, or all, the least certain first.
    """

    byte_price: float
    agreement: float | None
    regret: float | None
    units: tuple[UnitExplanation, ...]

    def __repr__(self) -> str:
        return f"Explanation({len(self.units)} units, {self.byte_price:.3g} nats per byte)"


def explain(
    model: Model, sensitivity: Sensitivity, plan: Plan, *, unit: str | None, resamples: int = RESAMPLES
) -> Explanation:
    """Explain the choice of ``plan`` among the schemes of its menu, by its budget and its share of 16-bit activations.

    Parameters
    ----------
    unit
        Name of a unit or of one of its Linears; ``None``: all.

    Raises
    ------
    ArgumentError
        There is no such unit (names the nearest), or the plan was made without prices.
    FormatError, StageFileError
        As `plan`.
    """
    if plan.price is None:
        raise ArgumentError("the plan was made without prices", hint="plan with a sensitivity and a budget")
    model = with_pinned(with_measured(model, sensitivity), plan.pins)
    menu = menu_of(
        model, schemes=plan.menu or DEFAULT_MENU, activations="auto", a16_share=plan.a16_limit, pins=plan.pins
    )
    units = priced_units(model, sensitivity, menu, plan.price, plan.preset)
    items = items_of(units)
    chosen = [
        [option.scheme for option in entry.options].index(planned.scheme)
        for entry, planned in zip(units, plan.units, strict=True)
    ]
    predicted = sum(item[index][1] for item, index in zip(items, chosen, strict=True))
    limits = (byte_limit(units, plan.bytes if plan.budget is None else plan.budget), *a16_limit(model, units, menu))
    same, regrets = Counter[int](), []
    for resampled in resampled_items(sensitivity, units, plan.price, resamples=resamples):
        choice = choose(resampled, limits).choice
        same.update(number for number, index in enumerate(choice) if index == chosen[number])
        regrets.append(sum(item[index][1] for item, index in zip(items, choice, strict=True)) - predicted)
    context = _Context(sensitivity, plan, hull(items))
    agreement = [same[number] / len(regrets) if regrets else None for number in range(len(units))]
    explained = [_unit(context, *parts) for parts in zip(units, chosen, agreement, strict=True)]
    shared = sum(planned.bytes * same[number] for number, planned in enumerate(plan.units))
    return Explanation(
        byte_price=context.byte_price,
        agreement=shared / plan.bytes / len(regrets) if regrets else None,
        regret=sum(regrets) / len(regrets) / predicted if regrets and predicted else None,
        units=_asked(explained, unit),
    )


@dataclass(frozen=True, slots=True)
class _Context:
    """What the explanations of all units share."""

    sensitivity: Sensitivity
    plan: Plan
    vertices: Vertices

    @property
    def byte_price(self) -> float:
        """What a byte more saves; 0 behind the last vertex."""
        for (before, loss), (after, less) in pairwise(self.vertices):
            if after > self.plan.bytes:
                return (loss - less) / (after - before)
        return 0.0

    def errors(self, unit: str) -> dict[str, float]:
        """Scheme -> standard error of its price, where they are known."""
        measured = next((entry.candidates for entry in self.sensitivity.units if entry.name == unit), ())
        found = self.sensitivity.candidate_errors(unit, str(self.plan.price)) or []
        return {candidate.scheme: error for candidate, error in zip(measured, found, strict=False)}


def _unit(context: _Context, entry: UnitOptions, chosen: int, agreement: float | None) -> UnitExplanation:
    best = entry.options[chosen]
    errors, taken = context.errors(entry.unit.name), _taken_at(entry, context.vertices)
    options = tuple(
        OptionExplanation(
            scheme=option.scheme,
            bytes=option.bytes,
            price=price_of(option),
            standard_error=errors.get(option.scheme),
            regret=price_of(option) - price_of(best) + context.byte_price * (option.bytes - best.bytes),
            bpw=8 * taken[option.scheme] / context.plan.parameters if option.scheme in taken else None,
        )
        for option in sorted(entry.options, key=lambda option: (option.bytes, -price_of(option)))
    )
    return UnitExplanation(
        name=entry.unit.name,
        linears=tuple(linear.name for linear in entry.unit.linears),
        scheme=best.scheme,
        why=_why(entry, options, best.scheme),
        agreement=agreement,
        options=options,
    )


def _why(entry: UnitOptions, options: Sequence[OptionExplanation], scheme: str) -> str:
    if entry.pinned:
        return f"it is pinned to {scheme}"
    if len(options) == 1:
        return f"nothing else of the menu fits its shape ({'; '.join(reason for _, reason in entry.misfits)})"
    others = [option for option in options if option.scheme != scheme]
    near = min(others, key=lambda option: option.regret)
    mine = next(option for option in options if option.scheme == scheme)
    if near.bytes > mine.bytes:
        saved, cost = mine.price - near.price, near.bytes - mine.bytes
        return f"{near.scheme} would save {saved:.3g} for {cost} bytes, which save more in other units"
    if near.bytes < mine.bytes:
        saved, cost = near.price - mine.price, mine.bytes - near.bytes
        return f"its {cost} bytes over {near.scheme} save {saved:.3g}, more than they would in other units"
    return f"{near.scheme} has as many bytes and loses {near.price - mine.price:.3g} more"


def _taken_at(entry: UnitOptions, vertices: Vertices) -> dict[str, int]:
    """Bytes of the first vertex in which the unit has each scheme of its own hull."""
    own = hull([[(option.bytes, price_of(option)) for option in entry.options]])
    cheapest_last = sorted(reversed(entry.options), key=lambda option: -price_of(option))
    by_bytes = {option.bytes: option.scheme for option in cheapest_last}  # the hull's losses are rounded sums
    slopes = [(loss - less) / (after - before) for (before, loss), (after, less) in pairwise(own)]
    found = {by_bytes[own[0][0]]: vertices[0][0]}
    for (size, _), slope in zip(own[1:], slopes, strict=True):
        steeper = (
            after
            for (before, loss), (after, less) in pairwise(vertices)
            if (loss - less) / (after - before) <= slope * (1 + 1e-9)
        )
        found[by_bytes[size]] = next(steeper, vertices[-1][0])
    return found


def _asked(units: Sequence[UnitExplanation], name: str | None) -> tuple[UnitExplanation, ...]:
    if name is None:
        return tuple(sorted(units, key=lambda unit: 1.0 if unit.agreement is None else unit.agreement))
    found = tuple(unit for unit in units if name == unit.name or name in unit.linears)
    if not found:
        names = [known for unit in units for known in (unit.name, *unit.linears)]
        near = difflib.get_close_matches(name, dict.fromkeys(names), n=3, cutoff=0.5)
        raise ArgumentError(
            f"unknown unit {name!r}", hint=f"near: {', '.join(near)}" if near else f"they look like {names[0]}"
        )
    return found
