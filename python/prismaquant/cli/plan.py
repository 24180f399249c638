"""Choose a scheme for every unit: the least expected KL divergence within a budget, proven optimal.

Reads the prices of a sensitivity file and the headers of the model; needs neither torch nor the calibration data.
Without a sensitivity file it says from the headers what fits, and how many bits per weight are left."""

from __future__ import annotations

import argparse
import inspect
from typing import TYPE_CHECKING, Any

from prismaquant.cli.budget import add_budget, add_price
from prismaquant.cli.common import add_model, plain
from prismaquant.cli.footprint import show_outlook
from prismaquant.cli.summary import show_plan

if TYPE_CHECKING:
    from prismaquant.files.plan import Plan
    from prismaquant.planning import Outlook

FUNCTION = "plan"
LONG = False
EXAMPLES = """\
examples:
  prismaquant plan ./Llama-3.2-1B --fit RTX-4090 --context 32k --kv fp8
  prismaquant plan ./Llama-3.2-1B --sensitivity sensitivity.safetensors --bpw 4.75 -o recipe.json
  prismaquant plan ./Llama-3.2-1B --sensitivity sensitivity.safetensors --size 1GB --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--sensitivity", metavar="FILE", help="made by 'prismaquant probe'; without it: what fits")
    parser.add_argument("-o", "--output", "--out", dest="out", metavar="RECIPE", help="the file to write (JSON)")
    add_budget(parser)
    advanced = parser.add_argument_group("advanced")
    add_price(advanced)
    advanced.add_argument(
        "--preset", metavar="NAME", help="solver of a plan without a sensitivity: rtn or scale_sweep (default)"
    )


def call(**options: Any) -> Plan | Outlook:
    """`prismaquant.plan`; without a sensitivity, where it would need one, `prismaquant.outlook`."""
    import prismaquant
    from prismaquant.formats import DEFAULT_MENU

    known = inspect.signature(prismaquant.outlook).parameters
    is_uniform = options["schemes"] != DEFAULT_MENU and all(options[name] is None for name in ("bpw", "size", "fit"))
    needs_prices = any(options[name] is not None for name in ("sensitivity", "out", "max_loss", "max_read"))
    if is_uniform or needs_prices:
        return prismaquant.plan(**options)
    return prismaquant.outlook(**{name: value for name, value in options.items() if name in known})


def document(decided: Plan | Outlook) -> Any:
    """The recipe; without a sensitivity, what fits."""
    from prismaquant.files import plan as file
    from prismaquant.files import record

    return record.document(decided, file.SCHEMA) if isinstance(decided, file.Plan) else plain(decided)


def show(decided: Plan | Outlook) -> None:
    from prismaquant.files.plan import Plan

    if isinstance(decided, Plan):
        show_plan(decided)
    else:
        show_outlook(decided)
