"""Candidates: what each unit may become, what that costs in bytes, and what it costs in KL divergence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prismaquant.errors import StageFileError
from prismaquant.facts import list_faults
from prismaquant.files.plan import Note
from prismaquant.formats import BF16, Scheme, get_scheme, stored_bytes, unknown_name
from prismaquant.model.kept import NO_LAYER

if TYPE_CHECKING:
    from prismaquant.files.sensitivity import Candidate, Sensitivity, UnitSensitivity
    from prismaquant.model import Linear, Model, Unit
    from prismaquant.planning.menu import Menu

__all__ = [
    "Option",
    "UnitOptions",
    "check_sensitivity",
    "price_of",
    "unit_bytes",
    "unit_options",
    "unpriced_options",
    "with_measured",
]


#: So many standard errors below zero a price may be; beyond, it is damaged.
_NOISE = 4


@dataclass(frozen=True, slots=True)
class Option:
    """One scheme for one unit: exact bytes of its stored tensors, and its price (``None``: not measured)."""

    scheme: str
    bytes: int
    price: float | None


@dataclass(frozen=True, slots=True)
class UnitOptions:
    """The schemes of the menu that a unit can take, in the order of the menu, never empty.

    ``misfits`` are the schemes of the menu that its shapes do not allow, each with the reason. A unit that none of the
    menu fits has BF16 as its only option. ``pinned``: the caller left it one. ``raised`` counts the prices that were
    negative within their noise and are taken as zero.
    """

    unit: Unit
    options: tuple[Option, ...]
    misfits: tuple[tuple[str, str], ...]
    pinned: bool = False
    raised: int = 0

    @property
    def smallest(self) -> Option:
        """The option with the fewest bytes."""
        return min(self.options, key=lambda option: option.bytes)

    def notes(self) -> tuple[Note, ...]:
        """Why the unit cannot take every scheme of the menu; empty if it can."""
        if not self.misfits:
            return ()
        by_reason: dict[str, list[str]] = {}
        for scheme, reason in self.misfits:
            by_reason.setdefault(reason, []).append(scheme)
        why = "; ".join(f"{', '.join(schemes)}: {reason}" for reason, schemes in by_reason.items())
        left = " or ".join(option.scheme for option in self.options)
        verb = f"stays {BF16}" if [option.scheme for option in self.options] == [BF16] else f"can only be {left}"
        return (Note("columns-not-divisible", self.unit.name, f"{verb} ({why})"),)


def unpriced_options(unit: Unit, menu: Menu) -> UnitOptions:
    """Every scheme of ``menu`` that the shapes of ``unit`` allow, else BF16; from the shapes alone, without prices."""
    fitting, misfits = _fitting(unit, menu)
    options = tuple(Option(scheme.name, unit_bytes(unit, scheme), None) for scheme in fitting)
    return UnitOptions(unit, options, misfits, unit.name in menu.pinned)


def check_sensitivity(sensitivity: Sensitivity, model: Model, *, price: str, preset: str) -> None:
    """Refuse a sensitivity that was measured on another model, with another preset, or without the price.

    Raises
    ------
    StageFileError
        Another model or another preset.
    FormatError
        The price is not one of those that were computed.
    """
    if sensitivity.model != model.fingerprint:
        raise StageFileError(
            f"the sensitivity was measured on another model ({sensitivity.model[:19]}..., "
            f"this one is {model.fingerprint[:19]}...)",
            where=str(model.path),
            hint="probe this model",
        )
    if sensitivity.preset != preset:
        raise StageFileError(
            f"the sensitivity prices renderings of preset {sensitivity.preset!r}, the plan asks for {preset!r}",
            hint=f"plan with preset={sensitivity.preset!r}, or probe again with preset={preset!r}",
        )
    if price not in sensitivity.prices:
        error = unknown_name("price", price, sensitivity.prices)
        error.add_note("these are the prices of this sensitivity; probe adds others (--prices)")
        raise error


def with_measured(model: Model, sensitivity: Sensitivity) -> Model:
    """``model`` with those of its `kept_units` as units that ``sensitivity`` has prices for: MTP layers, towers."""
    measured = {unit.name for unit in sensitivity.units}
    return model.with_units(unit for unit in model.kept_units if unit.name in measured)


def unit_options(
    unit: Unit, menu: Menu, measured: UnitSensitivity | None, price: str, sensitivity: Sensitivity
) -> UnitOptions:
    """Every scheme of ``menu`` that the shapes of ``unit`` allow, with the price that ``sensitivity`` has for it.

    Raises
    ------
    StageFileError
        The unit, or a scheme that fits it, was not measured; a price is not finite, or negative by more than `_NOISE`
        standard errors; the bytes differ from those that the scheme takes today.
    """
    if measured is None and unit.layer == NO_LAYER:
        return unpriced_options(unit, menu)  # in the scheme that it is pinned to
    if measured is None:
        raise StageFileError("the sensitivity has no such unit", where=unit.name, hint="probe this model again")
    fitting, misfits = _fitting(unit, menu)
    known = {candidate.scheme: candidate for candidate in measured.candidates}
    errors = {}
    if any(candidate.prices.get(price, 0) < 0 for candidate in measured.candidates):
        found = sensitivity.candidate_errors(unit.name, price)
        errors = dict(zip(known, found or [], strict=False))
    options = [_option(unit, scheme, known.get(scheme.name), errors.get(scheme.name, 0.0), price) for scheme in fitting]
    raised = [replace(option, price=max(0.0, price_of(option))) for option in options]
    count = sum(price_of(option) < 0 for option in options)
    return UnitOptions(unit, tuple(raised if count else options), misfits, unit.name in menu.pinned, count)


def price_of(option: Option) -> float:
    """The price of an option of `unit_options`; 0 for what has none, a pinned unit outside of the layers."""
    return 0.0 if option.price is None else option.price


def unit_bytes(unit: Unit, scheme: Scheme) -> int:
    """Exact bytes of all stored tensors of ``unit`` under ``scheme``."""
    linears, copies = _distinct(unit)
    return copies * sum(stored_bytes(scheme, linear.rows, linear.columns) for linear in linears)


def _fitting(unit: Unit, menu: Menu) -> tuple[list[Scheme], tuple[tuple[str, str], ...]]:
    """The schemes of ``menu`` that ``unit`` can take (BF16 if none), and the others with the reason."""
    misfits = tuple((scheme.name, reason) for scheme in menu.of(unit) if (reason := _misfit(unit, scheme, menu)))
    excluded = {name for name, _ in misfits}
    return [scheme for scheme in menu.of(unit) if scheme.name not in excluded] or [get_scheme(BF16)], misfits


def _option(unit: Unit, scheme: Scheme, candidate: Candidate | None, error: float, price: str) -> Option:
    size = unit_bytes(unit, scheme)
    if candidate is None:
        if scheme.name == BF16 and all(linear.weight.dtype == "BF16" for linear in unit.linears):
            return Option(BF16, size, 0.0)  # the weight itself: there is nothing to measure
        raise StageFileError(
            f"the sensitivity has no price for scheme {scheme.name}",
            where=unit.name,
            hint=f"probe with schemes that include {scheme.name!r} (--schemes)",
        )
    value = candidate.prices.get(price)
    if value is None or not math.isfinite(value) or value < -_NOISE * error:
        raise StageFileError(
            f"price {price!r} of scheme {scheme.name} is {value}, expected a finite number >= 0"
            + (f" (or within {_NOISE} standard errors of {error:.2g})" if error else ""),
            where=unit.name,
            hint="the sensitivity is damaged: probe again",
        )
    if candidate.bytes != size:
        raise StageFileError(
            f"the sensitivity counts {candidate.bytes} bytes for scheme {scheme.name}, it takes {size}",
            where=unit.name,
            hint="the sensitivity is damaged or from another release: probe again",
        )
    return Option(scheme.name, size, value)


def _distinct(unit: Unit) -> tuple[Sequence[Linear], int]:
    """Linears that stand for all, and how often: the experts of a bank are alike."""
    return (unit.linears[:3], unit.experts) if unit.experts else (unit.linears, 1)


def _misfit(unit: Unit, scheme: Scheme, menu: Menu) -> str | None:
    """Why ``unit`` cannot take ``scheme``: the first reason among its Linears, or an engine; ``None`` if it can."""
    for fault in list_faults() if unit.name not in menu.pinned else ():
        if fault.refuses and fault.concerns(scheme.name, unit.name, is_bank=bool(unit.experts)):
            return str(fault)
    for linear in _distinct(unit)[0]:
        if reason := menu.why_not(linear, scheme):
            return f"{linear.name}: {reason}" if len(unit.linears) > 1 else reason
    return None
