"""Plans and sensitivities made by hand, for tests that need no measurement."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

from prismaquant.files.plan import Plan, PlannedUnit
from prismaquant.files.sensitivity import LinearSensitivity, Sensitivity, UnitSensitivity
from prismaquant.formats import BF16, get_scheme, stored_bytes, why_not
from prismaquant.model import Model, Unit
from prismaquant.model.kept import NO_LAYER
from prismaquant.planning.pins import why_not_kept

__all__ = ["cycled", "fits", "mixed", "plan_of", "sensitivity_of", "spread"]


def fits(scheme: str, unit: Unit) -> bool:
    """Whether ``unit`` can be planned in ``scheme``, without having been measured if it lies in no layer."""
    if why_not_kept(unit, get_scheme(scheme)) or (unit.layer == NO_LAYER and get_scheme(scheme).input_scale):
        return False
    return not any(why_not(get_scheme(scheme), linear.rows, linear.columns) for linear in unit.linears)


def plan_of(model: Model, schemes: Iterable[str], *, preset: str = "scale_sweep") -> Plan:
    """A plan that gives the units of ``model``, in order, the ``schemes``."""
    units = []
    for unit, scheme in zip(model.units, schemes, strict=True):
        size = sum(stored_bytes(get_scheme(scheme), linear.rows, linear.columns) for linear in unit.linears)
        units.append(PlannedUnit(unit.name, tuple(linear.name for linear in unit.linears), scheme, size, None))
    return Plan(
        model=model.fingerprint,
        preset=preset,
        price=None,
        budget=None,
        parameters=sum(unit.parameters for unit in model.units),
        bytes=sum(unit.bytes for unit in units),
        predicted_kl=None,
        lower_bound=None,
        units=tuple(units),
    )


def cycled(model: Model, schemes: Sequence[str]) -> Plan:
    """``schemes`` in turn."""
    return plan_of(model, (schemes[number % len(schemes)] for number in range(len(model.units))))


def spread(model: Model, schemes: Sequence[str]) -> Plan:
    """Each of ``schemes`` about as often as the shapes allow: a unit gets the one that was used least, or BF16."""
    used = {BF16: len(model.units), **dict.fromkeys(schemes, 0)}
    chosen = []
    for unit in model.units:
        chosen.append(min((scheme for scheme in used if fits(scheme, unit)), key=used.__getitem__))
        used[chosen[-1]] += 1
    return plan_of(model, chosen)


def mixed(model: Model, schemes: Sequence[str], *, seed: int = 0) -> Plan:
    """``schemes`` at random."""
    choose = random.Random(seed).choice
    return plan_of(model, (choose(schemes) for _ in model.units))


def sensitivity_of(model: Model, input_amax: float | Mapping[str, float] = 3.0) -> Sensitivity:
    """Inputs reached what ``input_amax`` says by Linear; a number is multiplied by i at the i-th Linear of a unit."""

    def amax(name: str, number: int) -> float:
        return input_amax[name] if isinstance(input_amax, Mapping) else input_amax * (number + 1)

    units = tuple(
        UnitSensitivity(
            unit.name,
            tuple(
                LinearSensitivity(linear.name, linear.rows, linear.columns, 1.0, amax(linear.name, number))
                for number, linear in enumerate(unit.linears)
            ),
            (),
        )
        for unit in model.units
    )
    return Sensitivity(
        model=model.fingerprint,
        data="sha256:data",
        tokens=256,
        seq_len=128,
        probes=1,
        seed=0,
        preset="scale_sweep",
        prices=(),
        units=units,
    )
