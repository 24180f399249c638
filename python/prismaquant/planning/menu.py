"""The menu: which schemes a unit may take, as the caller limits them by name, activations, target device and pins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from prismaquant.errors import ArgumentError
from prismaquant.facts import Device, find_device
from prismaquant.files.plan import Note
from prismaquant.formats import BF16, DEFAULT_MENU, Scheme, blocks, get_scheme, why_not
from prismaquant.model.parallel import why_not_divided
from prismaquant.planning.pins import pinned_schemes

if TYPE_CHECKING:
    from prismaquant.model import Linear, Model, Unit

__all__ = ["ACTIVATIONS", "Activations", "Menu", "menu_of"]

Activations = Literal["native", "16", "auto"]
ACTIVATIONS: tuple[str, ...] = get_args(Activations)


@dataclass(frozen=True, slots=True)
class Menu:
    """What may be chosen.

    Attributes
    ----------
    schemes
        The rows, in the order they were named.
    pinned
        Unit name -> the only scheme it may take.
    share
        Largest share of the operations of all Linears that may be multiplied with 16-bit activations although their
        format has activations of its own; ``None``: no limit.
    device
        What the plan is for; ``None``: any.
    devices
        How many share the model; each must get whole blocks.
    kv_heads
        Heads of keys and values; 0: not known.
    """

    schemes: tuple[Scheme, ...]
    pinned: dict[str, Scheme]
    share: float | None = None
    device: Device | None = None
    devices: int = 1
    kv_heads: int = 0

    def of(self, unit: Unit) -> tuple[Scheme, ...]:
        """The schemes that ``unit`` may take if its shapes allow them."""
        return (self.pinned[unit.name],) if unit.name in self.pinned else self.schemes

    def why_not(self, linear: Linear, scheme: Scheme) -> str | None:
        """Why ``linear`` cannot take ``scheme``; ``None`` if it can."""
        if reason := why_not(scheme, linear.rows, linear.columns):
            return reason
        return why_not_divided(
            linear.name, (linear.rows, linear.columns), self.devices, blocks=blocks(scheme), kv_heads=self.kv_heads
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all schemes that some unit may take."""
        return tuple(dict.fromkeys(scheme.name for scheme in (*self.schemes, *self.pinned.values())))

    def is_kept(self, scheme: Scheme) -> bool:
        """Whether ``scheme`` keeps 16-bit activations that its format could quantize."""
        return scheme.activations is None and scheme.name != BF16

    def notes(self) -> tuple[Note, ...]:
        """What the device does differently."""
        if self.device is None:
            return ()
        return tuple(
            Note(
                "weight-only",
                "",
                f"{name} is served with 16-bit activations on {self.device.name}: its price counts rounded inputs, and "
                "is too high",
            )
            for name in self.names
            if name in self.device.family.weight_only
        )


def menu_of(
    model: Model,
    *,
    schemes: Sequence[str] = DEFAULT_MENU,
    activations: str = "native",
    a16_share: float | None = None,
    target_device: str | None = None,
    tensor_parallel: int = 1,
    pins: Sequence[str] = (),
) -> Menu:
    """The menu that the arguments describe.

    Parameters
    ----------
    schemes
        Names of rows.
    activations
        Of rows with the same weight format: ``"native"`` keeps the one with the activations of the format, ``"16"``
        never quantizes activations, ``"auto"`` keeps both.
    a16_share
        With ``"auto"``: share of the operations of all Linears that may keep 16-bit activations, 0 to 1.
    target_device
        Name of a device or family: rows that it does not serve are dropped, and of rows that it serves with 16-bit
        activations anyway those that say so are kept.
    tensor_parallel
        Devices that share the model.
    pins
        ``"PATTERN=SCHEME"`` each, of units that ``model`` has (see `with_pinned`). The pattern is the name of a unit or
        of a Linear, a glob, or ``re:`` and a regular expression that matches from the beginning. A later pin overrides
        an earlier one.

    Raises
    ------
    FormatError
        A scheme that does not exist.
    ArgumentError
        Nothing is left of the menu, a pin that contradicts siblings, shapes or the device, an unknown device.
    """
    names = (schemes,) if isinstance(schemes, str) else tuple(schemes)
    if not names:
        raise ArgumentError("schemes is empty", hint="name at least one scheme")
    rows = tuple(dict.fromkeys(get_scheme(name) for name in names))
    if activations not in ACTIVATIONS:
        raise ArgumentError(f"activations is {activations!r}", hint=f"accepted: {', '.join(ACTIVATIONS)}")
    if a16_share is not None and activations != "auto":
        raise ArgumentError("a16_share is for activations='auto'", hint="leave one of them out")
    if a16_share is not None and not 0 <= a16_share <= 1:
        raise ArgumentError(f"a16_share is {a16_share}, expected a share from 0 to 1")
    device = None if target_device is None else find_device(target_device)
    rows = _served(rows, device)
    rows = _with_activations(rows, activations)
    heads = model.text_config.get("num_key_value_heads")
    menu = Menu(rows, {}, a16_share, device, tensor_parallel, heads if isinstance(heads, int) else 0)
    return replace(menu, pinned=pinned_schemes(model, pins, menu))


def _served(rows: tuple[Scheme, ...], device: Device | None) -> tuple[Scheme, ...]:
    """The rows that ``device`` serves, without those whose activations it ignores where another row says the same."""
    if device is None:
        return rows
    family = device.family
    native = [row for row in rows if row.name in family.native]
    formats = {row.weight_format for row in native}
    weight_only = [row for row in rows if row.name in family.weight_only and row.weight_format not in formats]
    kept = tuple(row for row in rows if row in native or row in weight_only)
    if not kept:
        raise ArgumentError(
            f"{device.name} serves none of {', '.join(row.name for row in rows)}",
            hint=f"it serves {', '.join((*family.native, *family.weight_only))} ({family.source})",
        )
    return kept


def _with_activations(rows: tuple[Scheme, ...], activations: str) -> tuple[Scheme, ...]:
    if activations == "auto":
        return rows
    if activations == "16":
        kept = tuple(row for row in rows if row.activations is None)
        if not kept:
            raise ArgumentError(
                f"every scheme of the menu quantizes activations ({', '.join(row.name for row in rows)})",
                hint="add NVFP4A16 or BF16, or leave activations='16' out",
            )
        return kept
    native = {row.weight_format for row in rows if row.activations is not None}
    return tuple(row for row in rows if row.activations is not None or row.weight_format not in native)
