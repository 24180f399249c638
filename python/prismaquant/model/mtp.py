"""The layer that predicts a further token (MTP), where the architecture entry says how it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prismaquant.errors import ArgumentError

if TYPE_CHECKING:
    from prismaquant.model.checkpoint import Model
    from prismaquant.model.units import Unit

__all__ = ["is_of_mtp", "mtp_parts", "with_mtp"]


def mtp_parts(model: Model) -> dict[str, str]:
    """Name in an entry (``block``, ``projection``, ...) -> name on disk; empty if the entry of ``model`` has none."""
    return {part: name.format(layers=model.num_layers) for part, name in model.architecture.mtp.items()}


def with_mtp(model: Model) -> Model:
    """``model`` with the units of its MTP layer, behind all others.

    Raises
    ------
    ArgumentError
        It has none, or its architecture entry does not say how it computes.
    """
    parts = mtp_parts(model)
    if not parts:
        raise ArgumentError(
            f"mtp: the architecture entry {model.architecture.model_type} does not say how MTP layers compute",
            where=str(model.path),
            hint="--pin quantizes them without a price",
        )
    if f"{parts['projection']}.weight" not in model.tensors:
        raise ArgumentError(f"mtp: has no {parts['projection']}", where=str(model.path), hint="leave mtp out")
    names = {parts["projection"], *(f"{parts['block']}.{entry.name}" for entry in model.architecture.units)}
    return model.with_units(unit for unit in model.kept_units if unit.name in names)


def is_of_mtp(model: Model, unit: Unit) -> bool:
    """Whether ``unit`` belongs to the MTP layer."""
    parts = mtp_parts(model)
    return bool(parts) and (unit.name == parts["projection"] or unit.name.startswith(f"{parts['block']}."))
