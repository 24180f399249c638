"""`plan`: the scheme of every unit that costs least within the budget, with the proof that nothing is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prismaquant.errors import ArgumentError, ModelError
from prismaquant.files.plan import Note, Plan, PlannedUnit
from prismaquant.formats import BF16, DEFAULT_MENU, Scheme, get_scheme
from prismaquant.planning.allocation import allocate
from prismaquant.planning.budget import budget_of, check_budget
from prismaquant.planning.candidates import (
    Option,
    UnitOptions,
    check_sensitivity,
    menu_of,
    unit_options,
    unpriced_options,
)
from prismaquant.solver import DEFAULT_PRESET, preset_needs_gram

if TYPE_CHECKING:
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model

__all__ = ["plan", "preflight"]


def plan(
    model: Model,
    sensitivity: Sensitivity | None = None,
    *,
    bpw: float | None = None,
    size: int | str | None = None,
    schemes: Sequence[str] = DEFAULT_MENU,
    price: str = "directional",
    preset: str | None = None,
) -> Plan:
    """Choose a scheme for every unit of ``model``.

    With a budget: the choice with the smallest sum of prices whose stored bytes fit, exact, with a lower bound that
    proves it. Without one, and with a menu of one scheme (BF16 aside): that scheme wherever the shapes allow it.

    Parameters
    ----------
    model
        The model, from `prismaquant.open`.
    sensitivity
        Prices, from `probe`; needed with a budget. A uniform plan takes its prices from it where it is given.
    bpw
        Budget in bits per weight: everything stored for the Linears of the units over their weights.
    size
        Budget in bytes of all tensors of the folder, passed-through ones included (``"20GiB"`` is understood).
    schemes
        The menu. A unit that none of its schemes fits stays BF16.
    price
        Name of the price to minimise.
    preset
        Solver preset that renders the weights: by default the one that ``sensitivity`` was measured with, and no other
        then; without a sensitivity a data-free one, by default ``"scale_sweep"``.

    Raises
    ------
    ArgumentError
        No budget and more than one scheme; two budgets; a budget without a sensitivity.
    FormatError
        Unknown scheme, price or preset.
    StageFileError
        The sensitivity belongs to another model or preset, or lacks a scheme of the menu.
    BudgetError
        Below the smallest plan, or above the model in BF16; carries both as ``minimum`` and ``maximum``.
    """
    if not model.units:
        raise ModelError("has no Linear that can be quantized", where=str(model.path))
    if preset is None:
        preset = DEFAULT_PRESET if sensitivity is None else sensitivity.preset
    needs_sensitivity = preset_needs_gram(preset)
    menu = menu_of(schemes)
    budget = budget_of(model, bpw=bpw, size=size)
    if sensitivity is None and needs_sensitivity:
        raise ArgumentError(
            f"preset {preset!r} solves for the inputs of the model, so a plan for it needs a sensitivity",
            hint=f"make one with probe, or plan with preset={DEFAULT_PRESET!r}",
        )
    if budget is None:
        return _uniform(model, _only_scheme(menu), sensitivity, price, preset)
    if sensitivity is None:
        raise ArgumentError(f"a plan for {budget.asked} needs a sensitivity", hint="make one with probe")
    units = _priced(model, menu, sensitivity, price, preset)
    check_budget(budget, units)

    found = allocate([[(option.bytes, _known(option)) for option in entry.options] for entry in units], budget.bytes)
    chosen = [entry.options[index] for entry, index in zip(units, found.choice, strict=True)]
    return Plan(
        model=model.fingerprint,
        preset=preset,
        price=price,
        budget=budget.bytes,
        parameters=sum(unit.parameters for unit in model.units),
        bytes=sum(option.bytes for option in chosen),
        predicted_kl=found.loss,
        lower_bound=found.lower_bound,
        units=_decisions(units, chosen),
        calibration=_calibration(sensitivity, preset),
        standard_error=_standard_error(sensitivity, units, chosen, price),
        notes=_notes(units, chosen),
    )


def preflight(
    model: Model, *, bpw: float | None = None, size: int | str | None = None, schemes: Sequence[str] = DEFAULT_MENU
) -> int:
    """Refuse, from the headers alone, what `plan` would refuse after the measurement.

    Returns
    -------
    int
        The largest number of tensor bytes that the planned folder can have, for the check of the disk.

    Raises
    ------
    ArgumentError, FormatError, BudgetError
        As `plan`.
    """
    menu = menu_of(schemes)
    budget = budget_of(model, bpw=bpw, size=size)
    passthrough = sum(model.tensors[name].nbytes for name in model.passthrough)
    if budget is None:
        scheme = _only_scheme(menu)
        return passthrough + sum(unpriced_options(unit, [scheme]).smallest.bytes for unit in model.units)
    check_budget(budget, [unpriced_options(unit, menu) for unit in model.units])
    return passthrough + budget.bytes


def _only_scheme(menu: Sequence[Scheme]) -> Scheme:
    """The scheme of a uniform plan."""
    quantized = [scheme for scheme in menu if scheme.name != BF16]
    if len(quantized) > 1:
        raise ArgumentError(
            f"no budget, and a menu of {len(quantized)} schemes ({', '.join(scheme.name for scheme in quantized)})",
            hint="give bpw or size, or one scheme for a uniform plan",
        )
    return quantized[0] if quantized else get_scheme(BF16)


def _uniform(model: Model, scheme: Scheme, sensitivity: Sensitivity | None, price: str, preset: str) -> Plan:
    if sensitivity is None:
        units = [unpriced_options(unit, [scheme]) for unit in model.units]
    else:
        units = _priced(model, [scheme], sensitivity, price, preset)
    chosen = [entry.options[0] for entry in units]
    return Plan(
        model=model.fingerprint,
        preset=preset,
        price=None if sensitivity is None else price,
        budget=None,
        parameters=sum(unit.parameters for unit in model.units),
        bytes=sum(option.bytes for option in chosen),
        predicted_kl=None if sensitivity is None else sum(_known(option) for option in chosen),
        lower_bound=None,
        units=_decisions(units, chosen),
        calibration=_calibration(sensitivity, preset),
        standard_error=_standard_error(sensitivity, units, chosen, price),
        notes=_notes(units, chosen),
    )


def _priced(
    model: Model, menu: Sequence[Scheme], sensitivity: Sensitivity, price: str, preset: str
) -> list[UnitOptions]:
    check_sensitivity(sensitivity, model, price=price, preset=preset)
    measured = {unit.name: unit for unit in sensitivity.units}
    return [unit_options(unit, menu, measured.get(unit.name), price) for unit in model.units]


def _calibration(sensitivity: Sensitivity | None, preset: str) -> str | None:
    return sensitivity.calibration if sensitivity is not None and preset_needs_gram(preset) else None


def _standard_error(
    sensitivity: Sensitivity | None, units: Sequence[UnitOptions], chosen: Sequence[Option], price: str
) -> float | None:
    if sensitivity is None:
        return None
    priced = {unit.name: {candidate.scheme for candidate in unit.candidates} for unit in sensitivity.units}
    schemes = {entry.unit.name: option.scheme for entry, option in zip(units, chosen, strict=True)}
    return sensitivity.standard_error({name: x for name, x in schemes.items() if x in priced.get(name, ())}, price)


def _known(option: Option) -> float:
    assert option.price is not None  # every option of `unit_options` has one
    return option.price


def _decisions(units: Sequence[UnitOptions], chosen: Sequence[Option]) -> tuple[PlannedUnit, ...]:
    return tuple(
        PlannedUnit(
            name=entry.unit.name,
            linears=tuple(linear.name for linear in entry.unit.linears),
            scheme=option.scheme,
            bytes=option.bytes,
            price=option.price,
        )
        for entry, option in zip(units, chosen, strict=True)
    )


def _notes(units: Sequence[UnitOptions], chosen: Sequence[Option]) -> tuple[Note, ...]:
    """What the shapes forbid, and which weights lose bits although they are not quantized."""
    notes = [note for entry in units for note in entry.notes()]
    for entry, option in zip(units, chosen, strict=True):
        dtypes = sorted({linear.weight.dtype for linear in entry.unit.linears} - {"BF16"})
        if option.scheme == BF16 and dtypes:
            notes.append(Note("rounded-to-bf16", entry.unit.name, f"is rounded from {', '.join(dtypes)} to BF16"))
    return tuple(notes)
