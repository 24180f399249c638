"""The budget: bits per weight or the size of the folder -> bytes that the units may take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from prismaquant.errors import ArgumentError, BudgetError
from prismaquant.formats import BF16, get_scheme
from prismaquant.planning.candidates import unit_bytes
from prismaquant.quantity import format_bytes, parse_bytes

if TYPE_CHECKING:
    from prismaquant.model import Model
    from prismaquant.planning.candidates import UnitOptions

__all__ = ["Budget", "budget_of", "check_budget"]


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes that the units may take.

    Attributes
    ----------
    bytes
        The budget of the units; negative if the folder asked for is smaller than what is passed through.
    asked
        The budget in the words of the caller.
    passthrough
        Bytes of the tensors that are passed through, where they were subtracted (a size); ``None`` for bits per weight.
    """

    bytes: int
    asked: str
    passthrough: int | None = None


def budget_of(model: Model, *, bpw: float | None, size: int | str | None) -> Budget | None:
    """The budget that ``bpw`` (bits per weight of the units) or ``size`` (bytes of all tensors of the folder) leaves.

    Bits per weight count everything stored for the Linears of the units (codes, scales, global scales, and weights that
    have to stay BF16) over their weights: ``floor(bpw * parameters / 8)`` bytes. ``None`` if neither is given.

    Raises
    ------
    ArgumentError
        Both are given, or one is no positive number.
    """
    if bpw is not None and size is not None:
        raise ArgumentError("bpw and size are both given", hint="give one of them")
    if bpw is not None:
        if not (math.isfinite(bpw) and bpw > 0):
            raise ArgumentError(f"bpw is {bpw}, expected a positive number of bits per weight", hint="for example 4.75")
        parameters = sum(unit.parameters for unit in model.units)
        # The decimal that was written, not its binary neighbour: 4.6 must allow what 4.6 bits are.
        return Budget(math.floor(Fraction(str(float(bpw))) * parameters / 8), f"{bpw:g} bpw")
    if size is not None:
        total = parse_bytes(size)
        if total <= 0:
            raise ArgumentError(f"size is {size}, expected a positive number of bytes", hint="for example 20GiB")
        passthrough = sum(model.tensors[name].nbytes for name in model.passthrough)
        return Budget(total - passthrough, f"a folder of {_exact(total)}", passthrough)
    return None


def check_budget(budget: Budget, units: Sequence[UnitOptions]) -> None:
    """Refuse a budget that no plan meets, or that is larger than the model in BF16.

    Raises
    ------
    BudgetError
        ``minimum`` and ``maximum`` are bytes of the units; the message says them in the terms of the budget.
    """
    parameters = sum(entry.unit.parameters for entry in units)
    minimum = sum(entry.smallest.bytes for entry in units)
    maximum = sum(unit_bytes(entry.unit, get_scheme(BF16)) for entry in units)
    if budget.bytes < minimum:
        raise BudgetError(
            f"{budget.asked} is below the minimum of {_amount(minimum, parameters, budget.passthrough)}: "
            f"{_forced(units, budget.passthrough)}",
            minimum=minimum,
            maximum=maximum,
            hint=f"ask for at least {_least(minimum, parameters, budget.passthrough)}, or add a smaller scheme",
        )
    if budget.bytes > maximum:
        raise BudgetError(
            f"{budget.asked} is above the maximum of {_amount(maximum, parameters, budget.passthrough)}: "
            "the model in BF16 fits without quantization",
            minimum=minimum,
            maximum=maximum,
            hint="ask for less, or use the source as it is",
        )


def _amount(count: int, parameters: int, passthrough: int | None) -> str:
    bits = f"{8 * count / parameters:.4f} bpw"
    if passthrough is None:
        return f"{bits} ({count} bytes of the units)"
    return f"a folder of {_exact(count + passthrough)} ({bits})"


def _least(minimum: int, parameters: int, passthrough: int | None) -> str:
    """The smallest budget that works, in the terms of the caller."""
    if passthrough is not None:
        return f"size {minimum + passthrough}"
    return f"bpw {math.ceil(Fraction(8 * minimum * 10**4, parameters)) / 10**4:g}"


def _forced(units: Sequence[UnitOptions], passthrough: int | None) -> str:
    """What the smallest plan is made of."""
    by_scheme: dict[str, list[UnitOptions]] = {}
    for entry in units:
        by_scheme.setdefault(entry.smallest.scheme, []).append(entry)
    parts = [] if passthrough is None else [f"{_exact(passthrough)} are passed through"]
    for scheme, entries in by_scheme.items():
        forced = [entry.unit.name for entry in entries if entry.misfits]
        text = f"{len(entries)} units need {sum(e.smallest.bytes for e in entries)} bytes in {scheme}"
        if forced:
            shown = ", ".join(forced[:3]) + (", ..." if len(forced) > 3 else "")
            text += f" ({len(forced)} of them because nothing smaller fits their shape: {shown})"
        parts.append(text)
    return "; ".join(parts)


def _exact(count: int) -> str:
    return f"{count} bytes ({format_bytes(count)})"
