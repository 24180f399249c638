"""The budget: bits per weight, the size of the folder, or the memory of a device -> bytes that the units may take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from prismaquant.errors import ArgumentError, BudgetError
from prismaquant.formats import BF16, get_scheme
from prismaquant.planning.candidates import unit_bytes
from prismaquant.planning.serving import Serving, cache_scale_bytes, for_units
from prismaquant.quantity import format_bytes, parse_bytes

if TYPE_CHECKING:
    from prismaquant.model import Model
    from prismaquant.planning.candidates import UnitOptions

__all__ = ["Budget", "budgets_of", "check_budget"]


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes that the units may take.

    Attributes
    ----------
    bytes
        The budget of the units; negative if what was asked for is smaller than what else has to be there.
    asked
        The budget in the words of the caller.
    option
        How it was given: ``"bpw"``, ``"size"`` or ``"fit"``.
    beside
        Bytes of what else is in the folder or on the device, where they were subtracted; ``None`` for bits per weight.
    share
        Of the memory of a device that the engine takes; 1 for the others.
    """

    bytes: int
    asked: str
    option: str = "bpw"
    beside: int | None = None
    share: float = 1.0

    def total(self, count: int) -> int:
        """What would have to be asked for, in bytes, so that the units may take ``count``."""
        return math.ceil((count + (self.beside or 0)) / self.share)


def budgets_of(
    model: Model, *, bpw: float | None = None, size: int | str | None = None, serving: Serving | None = None
) -> tuple[Budget, ...]:
    """The budgets of the units that ``bpw``, ``size`` (bytes of all tensors of the folder) and the memory of one device
    leave, the smallest first; empty if none is given.

    Bits per weight count everything stored for the Linears of the units (codes, scales, global scales, and weights that
    have to stay BF16) over their weights: ``floor(bpw * parameters / 8)`` bytes.

    Raises
    ------
    ArgumentError
        ``bpw`` and ``size`` are both given, or one is no positive number.
    """
    if bpw is not None and size is not None:
        raise ArgumentError("bpw and size are both given", hint="give one of them")
    found = []
    if bpw is not None:
        if not (math.isfinite(bpw) and bpw > 0):
            raise ArgumentError(f"bpw is {bpw}, expected a positive number of bits per weight", hint="for example 4.75")
        parameters = sum(unit.parameters for unit in model.units)
        # The decimal that was written, not its binary neighbour: 4.6 must allow what 4.6 bits are.
        found.append(Budget(math.floor(Fraction(str(float(bpw))) * parameters / 8), f"{bpw:g} bpw"))
    if size is not None:
        total = parse_bytes(size)
        if total <= 0:
            raise ArgumentError(f"size is {size}, expected a positive number of bytes", hint="for example 20GiB")
        passthrough = sum(model.tensors[name].nbytes for name in model.passthrough)
        passthrough += cache_scale_bytes(model, serving)
        found.append(Budget(total - passthrough, f"a folder of {_exact(total)}", "size", passthrough))
    if serving is not None and serving.memory is not None and serving.tensor_parallel == 1:
        left = for_units(model, serving)
        usable = serving.usable
        assert usable is not None
        asked = f"{_exact(serving.memory)} of memory with a context of {serving.concurrency} x {serving.context} tokens"
        found.append(Budget(left, asked, "fit", usable - left, serving.engine.memory_utilization))
    return tuple(sorted(found, key=lambda budget: budget.bytes))


def check_budget(budget: Budget, units: Sequence[UnitOptions], *, alone: bool = True) -> None:
    """Refuse a budget that no plan meets, or, where it stands ``alone``, one that is larger than the model in BF16.

    Raises
    ------
    BudgetError
        ``minimum`` and ``maximum`` are bytes of the units; the message says them in the terms of the budget.
    """
    parameters = sum(entry.unit.parameters for entry in units)
    minimum = sum(entry.smallest.bytes for entry in units)
    maximum = sum(unit_bytes(entry.unit, get_scheme(BF16)) for entry in units)
    if budget.bytes < minimum:
        pins = [entry.unit.name for entry in units if entry.pinned]
        raise BudgetError(
            f"{budget.asked} is below the minimum of {_amount(minimum, parameters, budget)}: {_forced(units, budget)}",
            minimum=minimum,
            maximum=maximum,
            hint=f"ask for at least {_least(minimum, parameters, budget)}, or "
            + (f"unpin {_some(pins)}" if pins else "add a smaller scheme"),
        )
    if alone and budget.bytes > maximum:
        raise BudgetError(
            f"{budget.asked} is above the maximum of {_amount(maximum, parameters, budget)}: "
            "the model in BF16 fits without quantization",
            minimum=minimum,
            maximum=maximum,
            hint="use the source as it is, or ask for less (bpw, size)",
        )


def _amount(count: int, parameters: int, budget: Budget) -> str:
    bits = f"{8 * count / parameters:.4f} bpw"
    if budget.beside is None:
        return f"{bits} ({count} bytes of the units)"
    what = "a folder" if budget.option == "size" else "a device"
    return f"{what} of {_exact(budget.total(count))} ({bits})"


def _least(minimum: int, parameters: int, budget: Budget) -> str:
    """The smallest budget that works, in the terms of the caller."""
    if budget.beside is not None:
        return f"{budget.option} {budget.total(minimum)}"
    return f"bpw {math.ceil(Fraction(8 * minimum * 10**4, parameters)) / 10**4:g}"


def _forced(units: Sequence[UnitOptions], budget: Budget) -> str:
    """What the smallest plan is made of."""
    by_scheme: dict[str, list[UnitOptions]] = {}
    for entry in units:
        by_scheme.setdefault(entry.smallest.scheme, []).append(entry)
    parts = []
    if budget.beside is not None:
        what = "are passed through" if budget.option == "size" else "are for the KV cache, the engine and other tensors"
        parts.append(f"{_exact(budget.beside)} {what}")
    for scheme, entries in by_scheme.items():
        forced = [entry.unit.name for entry in entries if entry.misfits]
        pinned = [entry.unit.name for entry in entries if entry.pinned]
        text = f"{sum(e.smallest.bytes for e in entries)} bytes are of units in {scheme}"
        if forced:
            text += f" ({len(forced)} of them because nothing smaller fits their shape: {_some(forced)})"
        if pinned:
            text += f" ({len(pinned)} of them because they are pinned to it: {_some(pinned)})"
        parts.append(text)
    return "; ".join(parts)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _exact(count: int) -> str:
    return f"{count} bytes ({format_bytes(count)})"
