"""Vision and audio towers, and what projects their output into the language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prismaquant.errors import ArgumentError
from prismaquant.model.reasons import OUTSIDE, reason_of

if TYPE_CHECKING:
    from prismaquant.model.checkpoint import Model
    from prismaquant.model.units import Unit

__all__ = ["is_of_tower", "with_towers"]


def with_towers(model: Model) -> Model:
    """``model`` with the units of its towers and projectors, behind all others.

    Raises
    ------
    ArgumentError
        It has none.
    """
    units = [unit for unit in model.kept_units if is_of_tower(model, unit)]
    if not units:
        raise ArgumentError("tower_data: the model has no tower", where=str(model.path), hint="leave it out")
    return model.with_units(units)


def is_of_tower(model: Model, unit: Unit) -> bool:
    """Whether ``unit`` belongs to a tower or a projector."""
    return reason_of(unit.linears[0].weight, model.architecture, model.num_layers).startswith(OUTSIDE)
