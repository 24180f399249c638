"""Pins: units, also of what else would stay as it is, that get the scheme the user names."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from prismaquant.errors import ArgumentError
from prismaquant.facts import list_faults
from prismaquant.formats import get_scheme
from prismaquant.model.kept import NO_LAYER
from prismaquant.model.reasons import EMBEDDING, HEAD

if TYPE_CHECKING:
    from prismaquant.formats import Scheme
    from prismaquant.model import Model, Unit
    from prismaquant.planning.menu import Menu

__all__ = ["Pin", "pinned_schemes", "why_not_kept", "with_pinned"]

#: Seen by loading written folders: vLLM 0.33.0 looks rows up in packed integers alone.
_WHY_NOT_EMBEDDINGS = "transformers 5.24 does not load a quantized one"


class Pin:
    """One pin as it was written, ``PATTERN=SCHEME``.

    Raises
    ------
    ArgumentError
        It is not of that form, or its regular expression is none.
    FormatError
        The scheme does not exist.
    """

    def __init__(self, text: str) -> None:
        pattern, equals, name = text.rpartition("=")
        if not (equals and pattern):
            raise ArgumentError(f"pin {text!r} is not PATTERN=SCHEME", hint="for example 're:.*o_proj=FP8_DYNAMIC'")
        self.text, self.pattern, self.scheme = text, pattern, get_scheme(name)
        try:
            self._matches = re.compile(
                pattern.removeprefix("re:") if pattern.startswith("re:") else fnmatch.translate(pattern)
            ).match
        except re.error as cause:
            raise ArgumentError(f"pin pattern {pattern!r} is no regular expression ({cause})") from cause

    def __repr__(self) -> str:
        return f"Pin({self.text!r})"

    def among(self, units: Iterable[Unit]) -> tuple[Unit, ...]:
        """Those of ``units`` that it names, by themselves or by one of their Linears.

        If some lie in decoder layers, only those: ``re:.*q_proj`` is not meant for a vision tower.
        """
        found = [unit for unit in units if self.names(unit.name) or any(self.names(x.name) for x in unit.linears)]
        return tuple(unit for unit in found if unit.layer != NO_LAYER) or tuple(found)

    def names(self, name: str) -> bool:
        """Whether the pattern is for ``name``: a glob, or ``re:`` and an expression that matches from the beginning."""
        return self._matches(name) is not None


def with_pinned(model: Model, pins: Sequence[str]) -> Model:
    """``model`` with those of its `kept_units` as units that ``pins`` name.

    Raises
    ------
    ArgumentError
        A pin names nothing that can be quantized (says why, or what is near), or gives a unit that was not measured a
        scheme that stores the range of its inputs.
    FormatError
        A scheme does not exist.
    """
    if not pins:
        return model
    added: dict[str, tuple[Unit, Pin]] = {}
    present = {unit.name for unit in model.units}
    for pin in _read(pins):
        found = pin.among((*model.units, *model.kept_units))
        if not found:
            raise _unknown(model, pin)
        added |= {unit.name: (unit, pin) for unit in found if unit.name not in present}
    for unit, pin in added.values():
        if pin.scheme.input_scale:
            why = f"{pin.scheme.name} stores the range of the inputs, which nobody has seen"
            raise ArgumentError(
                f"pin {pin.text!r}: {unit.name}: {why}",
                hint="pin it to another scheme, or have it measured (--mtp, --tower-data)",
            )
    return model.with_units(unit for unit, _ in added.values())


def pinned_schemes(model: Model, pins: Sequence[str], menu: Menu) -> dict[str, Scheme]:
    """Name of each unit of ``model`` that ``pins`` name -> its scheme; a later pin overrides an earlier one.

    Raises
    ------
    ArgumentError
        A pin contradicts another for a sibling, the device, the shapes, or what is known of the unit.
    """
    device = menu.device
    by_linear: dict[str, Pin] = {}
    for pin in _read(pins):
        if device is not None and pin.scheme.name not in (*device.family.native, *device.family.weight_only):
            raise ArgumentError(
                f"pin {pin.text!r}: {device.name} does not serve {pin.scheme.name}", hint=device.family.source
            )
        for unit in pin.among(model.units):
            of_unit = pin.names(unit.name)
            by_linear |= {linear.name: pin for linear in unit.linears if of_unit or pin.names(linear.name)}
    pinned = {}
    for unit in model.units:
        found = {by_linear[linear.name] for linear in unit.linears if linear.name in by_linear}
        if len({pin.scheme.name for pin in found}) > 1:
            raise ArgumentError(
                f"pins {' and '.join(sorted(repr(pin.text) for pin in found))} contradict each other: "
                f"{', '.join(linear.name for linear in unit.linears)} must share one scheme",
                hint=f"pin {unit.name}",
            )
        for pin in found:
            for linear in unit.linears:
                if reason := menu.why_not(linear, pin.scheme) or why_not_kept(unit, pin.scheme):
                    raise ArgumentError(f"pin {pin.text!r}: {linear.name}: {reason}", hint="pin it to another scheme")
            pinned[unit.name] = pin.scheme
    return pinned


def _read(pins: Sequence[str]) -> tuple[Pin, ...]:
    return tuple(Pin(pin) for pin in ((pins,) if isinstance(pins, str) else pins))


def why_not_kept(unit: Unit, scheme: Scheme) -> str | None:
    """Why a reader refuses a unit of no decoder layer in ``scheme``."""
    if unit.layer != NO_LAYER:
        return None
    faults = (fault for fault in list_faults() if fault.refuses and fault.concerns(scheme.name, unit.name))
    return next(map(str, faults), None)


def _unknown(model: Model, pin: Pin) -> ArgumentError:
    for tensor in (*model.passthrough, *(["lm_head.weight"] if model.is_tied else [])):
        if pin.names(tensor) or pin.names(tensor.removesuffix(".weight")):
            why = model.reasons.get(tensor, HEAD)
            if why == EMBEDDING:
                why += f": {_WHY_NOT_EMBEDDINGS}"
            if why == HEAD:
                why += ": it is the embedding"
            others = ", ".join(unit.name for unit in model.kept_units[:4])
            return ArgumentError(
                f"pin {pin.text!r}: {tensor} cannot be quantized ({why})",
                hint=f"beside the layers these can be: {others}" if others else "leave it out",
            )
    units = (*model.units, *model.kept_units)
    names = [name for unit in units for name in (unit.name, *(linear.name for linear in unit.linears))]
    near = difflib.get_close_matches(pin.pattern.removeprefix("re:"), dict.fromkeys(names), n=3, cutoff=0.5)
    return ArgumentError(
        f"pin {pin.text!r} names no unit and no Linear",
        hint=f"near: {', '.join(near)}" if near else f"names look like {names[0]}; globs and re: work",
    )
