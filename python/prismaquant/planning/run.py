"""`plan`: the scheme of every unit that costs least within the limits, with the proof that nothing is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from prismaquant.errors import ArgumentError, ModelError
from prismaquant.facts import list_faults
from prismaquant.files.plan import Note, Plan, PlannedUnit
from prismaquant.formats import BF16, DEFAULT_MENU, Scheme, get_scheme
from prismaquant.model.kept import NO_LAYER
from prismaquant.model.towers import is_of_tower
from prismaquant.planning.candidates import (
    Option,
    UnitOptions,
    check_sensitivity,
    price_of,
    unit_options,
    unpriced_options,
    with_measured,
)
from prismaquant.planning.limits import a16_limit, a16_operations, cheapest_within_loss, choose, limits_of, operations
from prismaquant.planning.menu import Menu
from prismaquant.planning.pins import with_pinned
from prismaquant.planning.request import Question, Request
from prismaquant.planning.serving import cache_scale_bytes, footprint
from prismaquant.solver import DEFAULT_PRESET, preset_needs_gram

if TYPE_CHECKING:
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model

__all__ = ["items_of", "plan", "preflight", "priced_units"]


def plan(model: Model, sensitivity: Sensitivity | None, request: Request) -> Plan:
    """Choose a scheme for every unit of ``model``.

    With a budget or another limit: the choice with the smallest sum of prices within all of them, with a lower bound
    that proves it. Without one, and with a menu of one scheme (BF16 aside): that scheme wherever the shapes allow it;
    only that can be planned without ``sensitivity``.

    Raises
    ------
    ArgumentError
        Contradictory arguments, no limit and more than one scheme, or a limit without ``sensitivity``.
    FormatError
        Unknown scheme, price or preset.
    StageFileError
        The sensitivity belongs to another model or preset, or lacks a scheme of the menu.
    BudgetError
        Below the smallest plan, or above the model in BF16; carries both as ``minimum`` and ``maximum``.
    """
    if sensitivity is not None:
        model = with_measured(model, sensitivity)
    model = with_pinned(model, request.pins)
    if not model.units:
        raise ModelError("has no Linear that can be quantized", where=str(model.path))
    preset = request.preset or (DEFAULT_PRESET if sensitivity is None else sensitivity.preset)
    needs_sensitivity = preset_needs_gram(preset)
    if sensitivity is not None and tuple(request.schemes) == DEFAULT_MENU:
        measured = {candidate.scheme for unit in sensitivity.units for candidate in unit.candidates}
        request = replace(request, schemes=[name for name in DEFAULT_MENU if name == BF16 or name in measured])
    question = Question.of(model, request)
    if sensitivity is None and needs_sensitivity:
        raise ArgumentError(
            f"preset {preset!r} solves for the inputs of the model, so a plan for it needs a sensitivity",
            hint=f"make one with probe, or plan with preset={DEFAULT_PRESET!r}",
        )
    if sensitivity is None:
        if question.has_budget:
            raise ArgumentError(f"a plan for {question.asked} needs a sensitivity", hint="make one with probe")
        return _uniform(model, question, preset)
    if not question.has_budget:
        question = replace(question, menu=replace(question.menu, schemes=(_only_scheme(question.menu),)))
    return _best(model, sensitivity, question, preset)


def preflight(model: Model, request: Request) -> int:
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
    model = with_pinned(model, request.pins)
    question = Question.of(model, request)
    passthrough = sum(model.tensors[name].nbytes for name in model.passthrough)
    passthrough += cache_scale_bytes(model, question.serving)
    if not question.has_budget:
        menu = replace(question.menu, schemes=(_only_scheme(question.menu),))
        return passthrough + sum(unpriced_options(unit, menu).smallest.bytes for unit in model.units)
    units = [unpriced_options(unit, question.menu) for unit in model.units]
    limits_of(model, units, question)
    largest = sum(max(option.bytes for option in entry.options) for entry in units)
    return passthrough + min([largest, *(budget.bytes for budget in question.budgets)])


def priced_units(model: Model, sensitivity: Sensitivity, menu: Menu, price: str, preset: str) -> list[UnitOptions]:
    """The options of every unit with their prices; errors as `plan`."""
    check_sensitivity(sensitivity, model, price=price, preset=preset)
    measured = {unit.name: unit for unit in sensitivity.units}
    return [unit_options(unit, menu, measured.get(unit.name), price, sensitivity) for unit in model.units]


def items_of(units: Sequence[UnitOptions]) -> list[list[tuple[int, float]]]:
    """What the allocator sees of ``units``: their options as ``(bytes, price)``."""
    return [[(option.bytes, price_of(option)) for option in entry.options] for entry in units]


def _only_scheme(menu: Menu) -> Scheme:
    """The scheme of a uniform plan."""
    quantized = [scheme for scheme in menu.schemes if scheme.name != BF16]
    if len(quantized) > 1:
        raise ArgumentError(
            f"no budget, and a menu of {len(quantized)} schemes ({', '.join(scheme.name for scheme in quantized)})",
            hint="give bpw, size, fit or max_loss, or one scheme for a uniform plan",
        )
    return quantized[0] if quantized else get_scheme(BF16)


def _uniform(model: Model, question: Question, preset: str) -> Plan:
    """Without prices."""
    menu = replace(question.menu, schemes=(_only_scheme(question.menu),))
    units = [unpriced_options(unit, menu) for unit in model.units]
    chosen = [entry.options[0] for entry in units]
    return _plan(model, replace(question, menu=menu), preset, units, chosen)


def _best(model: Model, sensitivity: Sensitivity, question: Question, preset: str) -> Plan:
    request = question.request
    units = priced_units(model, sensitivity, question.menu, request.price, preset)
    items = items_of(units)
    budget = lower_bound = None
    if not question.has_budget:
        chosen = [entry.options[0] for entry in units]
        predicted = sum(price_of(option) for option in chosen)
    else:
        share = a16_limit(model, units, question.menu)
        if request.max_loss is not None:
            budget, found = cheapest_within_loss(items, request.max_loss, share)
        else:
            limits = limits_of(model, units, question)
            found = choose(items, (*limits, *share))
            budget = question.budgets[0].bytes if question.budgets else None
        chosen = [entry.options[index] for entry, index in zip(units, found.choice, strict=True)]
        predicted, lower_bound = found.loss, found.lower_bound
    decided = _plan(model, question, preset, units, chosen)
    return replace(
        decided,
        price=request.price,
        notes=(*decided.notes, *_further_losses(model, units, chosen)),
        budget=budget,
        predicted_kl=predicted,
        lower_bound=lower_bound,
        calibration=sensitivity.calibration if preset_needs_gram(preset) else None,
        standard_error=_standard_error(sensitivity, units, chosen, request.price),
    )


def _plan(
    model: Model, question: Question, preset: str, units: Sequence[UnitOptions], chosen: Sequence[Option]
) -> Plan:
    """The plan of what was ``chosen``, without what only prices can say."""
    kept = sum(
        a16_operations(model, entry, get_scheme(option.scheme), question.menu)
        for entry, option in zip(units, chosen, strict=True)
    )
    return Plan(
        model=model.fingerprint,
        preset=preset,
        price=None,
        budget=None,
        parameters=sum(unit.parameters for unit in model.units),
        bytes=sum(option.bytes for option in chosen),
        predicted_kl=None,
        lower_bound=None,
        units=_decisions(units, chosen),
        notes=(*question.menu.notes(), *_notes(units, chosen)),
        menu=tuple(scheme.name for scheme in question.menu.schemes),
        pins=question.pins,
        a16_limit=question.menu.share,
        a16_share=kept / sum(operations(model, unit) for unit in model.units),
        footprint=footprint(
            model,
            {entry.unit.name: option.bytes for entry, option in zip(units, chosen, strict=True)},
            question.serving,
        ),
    )


def _standard_error(
    sensitivity: Sensitivity, units: Sequence[UnitOptions], chosen: Sequence[Option], price: str
) -> float | None:
    priced = {unit.name: {candidate.scheme for candidate in unit.candidates} for unit in sensitivity.units}
    schemes = {entry.unit.name: option.scheme for entry, option in zip(units, chosen, strict=True)}
    return sensitivity.standard_error({name: x for name, x in schemes.items() if x in priced.get(name, ())}, price)


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
    """What the shapes forbid, which weights lose bits although they are not quantized, what engines get wrong, and
    prices below zero."""
    notes = [note for entry in units for note in entry.notes()]
    for entry, option in zip(units, chosen, strict=True):
        dtypes = sorted({linear.weight.dtype for linear in entry.unit.linears} - {"BF16"})
        if option.scheme == BF16 and dtypes:
            notes.append(Note("rounded-to-bf16", entry.unit.name, f"is rounded from {', '.join(dtypes)} to BF16"))
    for fault in list_faults():
        if any(
            fault.concerns(option.scheme, entry.unit.name, is_bank=bool(entry.unit.experts))
            for entry, option in zip(units, chosen, strict=True)
        ):
            notes.append(Note("engine-fault", "", f"{fault} ({', '.join(fault.schemes)})"))
    for entry, option in zip(units, chosen, strict=True):
        if entry.unit.layer == NO_LAYER and option.price is None and option.scheme != BF16:
            text = f"is pinned to {option.scheme} outside of the layers: eval measures what it loses, no price does"
            notes.append(Note("not-priced", entry.unit.name, text))
    raised = sum(entry.raised for entry in units)
    if raised:
        notes.append(Note("price-within-noise", "", f"{raised} prices are negative within their noise and count as 0"))
    return tuple(notes)


def _further_losses(model: Model, units: Sequence[UnitOptions], chosen: Sequence[Option]) -> tuple[Note, ...]:
    """How much of the predicted loss is not of the model on text."""
    priced: dict[str, list[float]] = {}
    for entry, option in zip(units, chosen, strict=True):
        if entry.unit.layer == NO_LAYER and option.price is not None:
            priced.setdefault("tower-loss" if is_of_tower(model, entry.unit) else "mtp-loss", []).append(option.price)
    what = {"mtp-loss": "what the MTP layer predicts", "tower-loss": "towers, on prompts with images or audio"}
    return tuple(
        Note(kind, "", f"{sum(prices):.3g} nats of the predicted loss are of {what[kind]}, which eval does not measure")
        for kind, prices in priced.items()
    )
