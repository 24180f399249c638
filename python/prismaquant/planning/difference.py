"""`difference`: what two plans decide differently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prismaquant.files.plan import Plan

__all__ = ["Difference", "UnitDifference", "difference"]


@dataclass(frozen=True, slots=True)
class UnitDifference:
    """One unit that the plans store differently; ``None`` where a plan does not have it.

    Attributes
    ----------
    before, after
        Its schemes.
    bytes
        How many more the second plan stores.
    price
        How much more it predicts, nats per token; ``None`` where one of them was not measured.
    """

    name: str
    before: str | None
    after: str | None
    bytes: int
    price: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Result of `diff`.

    Attributes
    ----------
    units
        What differs, in the order of the first plan; then what only the second has.
    same
        How many units do not.
    bytes, predicted_kl
        How much more the second plan stores and predicts; ``None``: not measured, or by another price.
    same_model
        Whether both are of one model.
    """

    units: tuple[UnitDifference, ...]
    same: int
    bytes: int
    predicted_kl: float | None
    same_model: bool

    def __repr__(self) -> str:
        return f"Difference({len(self.units)} units differ, {self.same} do not, {self.bytes:+d} bytes)"


def difference(before: Plan, after: Plan) -> Difference:
    """What ``after`` decides otherwise than ``before``."""
    old, new = ({unit.name: unit for unit in plan.units} for plan in (before, after))
    comparable = before.price == after.price and before.price is not None
    units = []
    for name in dict.fromkeys([*old, *new]):
        one, other = old.get(name), new.get(name)
        if one is not None and other is not None and (one.scheme, one.linears) == (other.scheme, other.linears):
            continue
        prices = [None if unit is None else unit.price for unit in (one, other)]
        units.append(
            UnitDifference(
                name=name,
                before=None if one is None else one.scheme,
                after=None if other is None else other.scheme,
                bytes=(0 if other is None else other.bytes) - (0 if one is None else one.bytes),
                price=_gain(*prices) if comparable else None,
            )
        )
    return Difference(
        units=tuple(units),
        same=len(old.keys() | new.keys()) - len(units),
        bytes=after.bytes - before.bytes,
        predicted_kl=_gain(before.predicted_kl, after.predicted_kl) if comparable else None,
        same_model=before.model == after.model,
    )


def _gain(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
