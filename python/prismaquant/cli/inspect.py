"""What is in a model folder: units (Linears that share a scheme), their shapes, what can be quantized and what is kept.

Reads headers only."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

from prismaquant.cli.common import add_model
from prismaquant.cli.summary import every_layer
from prismaquant.formats import get_scheme, list_schemes, stored_bytes, why_not
from prismaquant.quantity import format_bytes

if TYPE_CHECKING:
    from prismaquant.model import Model, Unit

FUNCTION = "open"
LONG = False
EXAMPLES = """\
examples:
  prismaquant inspect ./Llama-3.2-1B
  prismaquant inspect ./Llama-3.2-1B --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)


def document(model: Model) -> dict[str, Any]:
    return {
        "path": str(model.path),
        "architecture": model.architecture.model_type,
        "layers": model.num_layers,
        "parameters": model.parameters,
        "bytes": model.nbytes,
        "fingerprint": model.fingerprint,
        "units": [
            {
                "name": unit.name,
                "linears": {linear.name: [linear.rows, linear.columns] for linear in unit.linears},
                "bytes": _bytes(unit),
                "reasons": _reasons(unit),
            }
            for unit in model.units
        ],
        "kept": {
            name: {"bytes": model.tensors[name].nbytes, "reason": reason} for name, reason in model.reasons.items()
        },
        "kept_units": {unit.name: [linear.name for linear in unit.linears] for unit in model.kept_units},
    }


def show(model: Model) -> None:
    from prismaquant.cli.tables import line, table

    line(f"{model.path}: {model!r}")
    kinds = Counter((unit.name.split(f".{unit.layer}.", 1)[-1], _shapes(unit)) for unit in model.units)
    first = {(unit.name.split(f".{unit.layer}.", 1)[-1], _shapes(unit)): unit for unit in reversed(model.units)}
    table(
        ("unit", "rows x columns", "layers", *list_schemes()),
        [
            (*kind, str(count), *(_cell(first[kind], scheme, count) for scheme in list_schemes()))
            for kind, count in kinds.items()
        ],
        left=2,
    )
    sizes: dict[str, int] = {}
    for name, reason in model.reasons.items():
        sizes[reason] = sizes.get(reason, 0) + model.tensors[name].nbytes
    counts = Counter(model.reasons.values())
    table(
        ("kept as they are", "tensors", "bytes"),
        [(reason, str(counts[reason]), format_bytes(size)) for reason, size in sorted(sizes.items())],
    )
    if model.kept_units:
        line(f"--pin also takes: {', '.join(dict.fromkeys(every_layer(unit.name) for unit in model.kept_units))}")
    places = Counter(name.split(".", model.architecture.layers.count(".") + 2)[-1] for name in model.unknown)
    for place, count in places.items():
        line(f"note: {place} is unknown to the architecture's entry, in {count} layers")
    reasons = {reason for unit in model.units for reason in _reasons(unit).values()}
    for reason in sorted({every_layer(reason) for reason in reasons}):
        line(f"note: {reason}")


def _shapes(unit: Unit) -> str:
    """``256+128+128 x 256``: fused siblings see the same input, so they have the same columns."""
    if unit.experts:
        return f"{unit.experts} experts: " + ", ".join(
            f"{linear.rows} x {linear.columns}" for linear in unit.linears[:3]
        )
    return f"{'+'.join(str(linear.rows) for linear in unit.linears)} x {unit.linears[0].columns}"


def _reasons(unit: Unit) -> dict[str, str]:
    """Scheme -> why the unit cannot take it."""
    found = {}
    for name in list_schemes():
        for linear in unit.linears:
            reason = why_not(get_scheme(name), linear.rows, linear.columns)
            if reason is not None:
                found[name] = f"{linear.name}: {reason}"
    return found


def _bytes(unit: Unit) -> dict[str, int]:
    reasons = _reasons(unit)
    return {
        name: sum(stored_bytes(get_scheme(name), linear.rows, linear.columns) for linear in unit.linears)
        for name in list_schemes()
        if name not in reasons
    }


def _cell(unit: Unit, scheme: str, count: int) -> str:
    size = _bytes(unit).get(scheme)
    return "-" if size is None else format_bytes(size * count)
