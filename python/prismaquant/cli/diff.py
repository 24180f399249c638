"""Which units two recipes, or two written checkpoints, store differently: schemes, bytes, predicted loss."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from prismaquant.cli.common import plain

if TYPE_CHECKING:
    from prismaquant.planning import Difference

FUNCTION = "diff"
LONG = False
EXAMPLES = """\
examples:
  prismaquant diff ./Llama-3.2-1B-4.75 ./Llama-3.2-1B-5.5
  prismaquant diff recipe.json ./Llama-3.2-1B-4.75 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", metavar="A", help="a recipe, or a folder that was exported")
    parser.add_argument("after", metavar="B", help="another one")


def document(found: Difference) -> Any:
    return plain(found)


def show(found: Difference) -> None:
    from prismaquant.cli.tables import line, table

    if found.units:
        table(
            ("unit", "A", "B", "bytes", "predicted KL"),
            [
                (unit.name, unit.before or "-", unit.after or "-", f"{unit.bytes:+d}", _signed(unit.price))
                for unit in found.units
            ],
            left=3,
        )
    loss = _signed(found.predicted_kl)
    line(f"{len(found.units)} units differ, {found.same} do not: {found.bytes:+d} bytes, predicted KL {loss}")
    if not found.same_model:
        line("note: they are of different models")


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4g}"
