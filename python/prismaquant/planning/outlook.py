"""`Outlook`: what the headers alone say: what fits where, and how many bits per weight are left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from prismaquant.errors import ModelError
from prismaquant.facts import list_devices
from prismaquant.formats import BF16, get_scheme
from prismaquant.planning.candidates import UnitOptions, unit_bytes, unpriced_options
from prismaquant.planning.menu import Menu
from prismaquant.planning.pins import with_pinned
from prismaquant.planning.request import Question, Request
from prismaquant.planning.serving import device_bytes, footprint, for_units

if TYPE_CHECKING:
    from prismaquant.files.plan import Footprint
    from prismaquant.model import Model

__all__ = ["Outlook", "Place", "outlook"]

Verdict = Literal["unquantized", "quantized", "impossible"]


@dataclass(frozen=True, slots=True)
class Place:
    """One budget, or one device.

    Attributes
    ----------
    name
        Of the device, or the budget in the words of the caller.
    bytes
        What is left for the units, on all devices together; negative if the rest alone does not fit.
    bpw
        The same in bits per weight.
    verdict
        ``"unquantized"``: the model in BF16 fits. ``"quantized"``: a plan of the menu fits. ``"impossible"``: none.
    uniform
        Schemes that fit if every unit takes them (or what its shapes allow).
    """

    name: str
    bytes: int
    bpw: float
    verdict: Verdict
    uniform: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outlook:
    """Result of `outlook`.

    Attributes
    ----------
    minimum, maximum
        Bytes of the units in the smallest plan of the menu, and in BF16.
    parameters
        Weights of all units.
    places
        The budget that was asked for, or every known device.
    footprint
        What a device holds and reads under the smallest plan.
    """

    minimum: int
    maximum: int
    parameters: int
    places: tuple[Place, ...]
    footprint: Footprint

    def __repr__(self) -> str:
        low, high = (8 * count / self.parameters for count in (self.minimum, self.maximum))
        return f"Outlook({low:.3f} to {high:.3f} bpw, {len(self.places)} places)"


def outlook(model: Model, request: Request) -> Outlook:
    """What fits, from the headers of ``model`` alone: the budget of ``request``, or every known device.

    Raises
    ------
    ModelError
        There is nothing to quantize; or a device is asked for, and ``config.json`` lacks what its KV cache depends on.
    """
    model = with_pinned(model, request.pins)
    if not model.units:
        raise ModelError("has no Linear that can be quantized", where=str(model.path))
    question = Question.of(model, request)
    units = [unpriced_options(unit, question.menu) for unit in model.units]
    smallest = {entry.unit.name: entry.smallest.bytes for entry in units}
    return Outlook(
        minimum=sum(smallest.values()),
        maximum=sum(unit_bytes(unit, get_scheme(BF16)) for unit in model.units),
        parameters=sum(unit.parameters for unit in model.units),
        places=tuple(_places(model, question, units)),
        footprint=footprint(model, smallest, question.serving),
    )


def _places(model: Model, question: Question, units: list[UnitOptions]) -> Iterable[Place]:
    serving = question.serving
    for budget in question.budgets:
        yield _place(model, budget.asked, budget.bytes, 1, question.menu, units)
    if serving.memory is not None and serving.tensor_parallel > 1:
        left = for_units(model, serving)
        yield _place(model, question.asked, left, serving.tensor_parallel, question.menu, units)
    if question.budgets or serving.memory is not None:
        return
    for device in list_devices():
        try:
            left = for_units(model, replace(serving, memory=device.memory, device=device))
        except ModelError:
            return
        menu = Question.of(model, replace(question.request, target_device=device.name)).menu
        units = [unpriced_options(unit, menu) for unit in model.units]
        yield _place(model, device.name, left, serving.tensor_parallel, menu, units)


def _place(model: Model, name: str, left: int, devices: int, menu: Menu, units: list[UnitOptions]) -> Place:
    def fits(sizes: dict[str, int]) -> bool:
        return sum(device_bytes(model, unit, sizes[unit.name], devices) for unit in model.units) <= left

    uniform = []
    for scheme in menu.schemes:
        only = replace(menu, schemes=(scheme,))
        if fits({unit.name: unpriced_options(unit, only).smallest.bytes for unit in model.units}):
            uniform.append(scheme.name)
    verdict: Verdict = "impossible"
    if fits({unit.name: unit_bytes(unit, get_scheme(BF16)) for unit in model.units}):
        verdict = "unquantized"
    elif fits({entry.unit.name: entry.smallest.bytes for entry in units}):
        verdict = "quantized"
    total = left * devices
    return Place(name, total, 8 * total / sum(unit.parameters for unit in model.units), verdict, tuple(uniform))
