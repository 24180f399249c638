"""Choose a scheme for every unit: the least expected KL divergence within a budget, proven optimal.

Reads the prices of a sensitivity file and the headers of the model; needs neither torch nor the calibration data."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from prismaquant.cli.budget import add_budget, add_price
from prismaquant.cli.common import add_model
from prismaquant.cli.summary import show_plan

if TYPE_CHECKING:
    from prismaquant.files.plan import Plan

FUNCTION = "plan"
LONG = False
EXAMPLES = """\
examples:
  prismaquant plan ./Llama-3.2-1B --sensitivity sensitivity.safetensors --bpw 4.75 -o recipe.json
  prismaquant plan ./Llama-3.2-1B --sensitivity sensitivity.safetensors --size 1GB --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--sensitivity", metavar="FILE", help="made by 'prismaquant probe'; needed with a budget")
    parser.add_argument("-o", "--output", "--out", dest="out", metavar="RECIPE", help="the file to write (JSON)")
    add_budget(parser)
    advanced = parser.add_argument_group("advanced")
    add_price(advanced)
    advanced.add_argument(
        "--preset", metavar="NAME", help="solver of a plan without a sensitivity: rtn or scale_sweep (default)"
    )


def document(decided: Plan) -> Any:
    """The recipe."""
    from prismaquant.files import plan as file
    from prismaquant.files import record

    return record.document(decided, file.SCHEMA)


def show(decided: Plan) -> None:
    show_plan(decided)
