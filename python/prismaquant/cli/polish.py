"""Solve the quantized units of a recipe again, each for what reaches it behind the quantized layers before it.

A unit keeps its new rendering only if that lowers the error on windows it was not solved for, and the whole counts only
if it lowers the measured KL divergence there. An interrupted run goes on with the next unit."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from prismaquant.cli.calibration import add_machine
from prismaquant.cli.common import add_model, add_plan, add_sensitivity
from prismaquant.cli.summary import show_polish

if TYPE_CHECKING:
    from prismaquant.files.polish import Polish

FUNCTION = "polish"
LONG = True
EXAMPLES = """\
examples:
  prismaquant polish ./Llama-3.2-1B --plan recipe.json --sensitivity s.safetensors --work-dir ./work -o ./polished
  prismaquant export ./Llama-3.2-1B --plan recipe.json --sensitivity s.safetensors --renderings ./polished -o ./out
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_plan(parser)
    add_sensitivity(parser)
    parser.add_argument(
        "-o", "--output", "--out", dest="out", required=True, metavar="RENDERINGS", help="folder for the new renderings"
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--work-dir", required=True, metavar="DIR", help="the work folder of the probe")
    add_machine(machine)


def document(polish: Polish) -> Any:
    """The same document that ``polish.json`` holds."""
    from prismaquant.files import polish as file
    from prismaquant.files import record

    return record.document(polish, file.SCHEMA)


def show(polish: Polish) -> None:
    from prismaquant.cli.tables import line, table

    table(
        ("unit", "scheme", "error before", "after", "taken"),
        [
            (
                unit.name,
                unit.scheme,
                f"{unit.error_before:.4g}",
                f"{unit.error_after:.4g}",
                "new" if unit.polished else "old",
            )
            for unit in polish.units
        ],
        left=2,
    )
    if polish.predicted_kl is not None:
        line(f"predicted KL {polish.predicted_kl:.4g} nats per token")
    show_polish(polish)
