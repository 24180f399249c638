"""A plan, as a table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prismaquant.cli.footprint import show_footprint
from prismaquant.formats import list_schemes
from prismaquant.quantity import format_bytes

if TYPE_CHECKING:
    from prismaquant.files.plan import Plan
    from prismaquant.files.polish import Polish
    from prismaquant.pipeline.validation import Validated

__all__ = ["every_layer", "show_plan", "show_polish", "show_validated"]


def show_plan(decided: Plan, bits_per_parameter: float | None = None) -> None:
    """Units by scheme, bytes, the predicted loss and the remarks.

    Parameters
    ----------
    bits_per_parameter
        Of the whole folder, where it was written.
    """
    from prismaquant.cli.tables import line, table

    schemes = [name for name in list_schemes() if any(unit.scheme == name for unit in decided.units)]
    units = Counter((every_layer(unit.name), unit.scheme) for unit in decided.units)
    sizes = Counter[str]()
    for unit in decided.units:
        sizes[unit.scheme] += unit.bytes
    rows = [(kind, *(str(units[kind, name] or "-") for name in schemes)) for kind in dict.fromkeys(k for k, _ in units)]
    table(("units", *schemes), [*rows, ("bytes", *(format_bytes(sizes[name]) for name in schemes))])
    whole = "" if bits_per_parameter is None else f", {bits_per_parameter:.4f} per parameter of the model"
    line(f"{decided.bpw:.4f} bits per weight of the body{whole}")
    if decided.predicted_kl is not None:
        proof = "" if decided.lower_bound is None else f" (no plan of no more bytes is below {decided.lower_bound:.4g})"
        error = "" if decided.standard_error is None else f" +- {decided.standard_error:.2g}"
        line(f"predicted KL {decided.predicted_kl:.4g}{error} nats per token{proof}")
    if decided.a16_share:
        line(f"{decided.a16_share:.1%} of the operations keep 16-bit activations")
    if decided.footprint is not None:
        show_footprint(decided.footprint)
    notes = Counter(f"{every_layer(note.unit)} {every_layer(note.text)}".strip() for note in decided.notes)
    for text, count in notes.items():
        line(f"note: {text}" + (f" [{count} units]" if count > 1 else ""))


def show_polish(polish: Polish | None, *, priced: bool = True) -> None:
    """What was measured before and after; nothing where there was neither a polish nor prices."""
    from prismaquant.cli.tables import line

    if polish is None:
        if priced:
            line("not polished: the weights are those that were priced")
        return
    before, after = (
        f"{kl:.4g}" + ("" if error is None else f" +- {error:.2g}")
        for kl, error in (
            (polish.kl_before, polish.standard_error_before),
            (polish.kl_after, polish.standard_error_after),
        )
    )
    taken = sum(unit.polished for unit in polish.units)
    outcome = f"{taken} of {len(polish.units)} units" if polish.accepted else "not better, so it was dropped"
    line(f"measured KL on held-out windows {before} before the polish, {after} after it ({outcome})")


def show_validated(tried: Sequence[Validated]) -> None:
    """What was predicted and what was measured, for every plan that was built."""
    from prismaquant.cli.tables import table

    table(
        ("plan", "bits per weight", "predicted KL", "measured KL"),
        [
            (
                each.name + (" *" if each.chosen else ""),
                f"{each.plan.bpw:.4f}",
                "-" if each.plan.predicted_kl is None else f"{each.plan.predicted_kl:.4g}",
                f"{each.kl:.4g}" + ("" if each.standard_error is None else f" +- {each.standard_error:.2g}"),
            )
            for each in tried
        ],
    )


def every_layer(text: str) -> str:
    """``model.layers.3.mlp.down_proj`` -> ``model.layers.*.mlp.down_proj``."""
    return re.sub(r"\.\d+\.", ".*.", text)
