"""What every budget buys: the plans that nothing of no more bytes beats, and the knee, where another bit stops paying.

Reads the prices of a sensitivity file and the headers of the model; needs neither torch nor the calibration data. Bytes
are those of the Linears, as --bpw counts them; --size and --fit count what the folder has beside, too."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from prismaquant.cli.budget import add_menu, add_price
from prismaquant.cli.common import add_model, add_sensitivity, plain
from prismaquant.quantity import format_bytes

if TYPE_CHECKING:
    from prismaquant.planning import Frontier

FUNCTION = "frontier"
LONG = False
EXAMPLES = """\
examples:
  prismaquant frontier ./Llama-3.2-1B --sensitivity sensitivity.safetensors
  prismaquant frontier ./Llama-3.2-1B --sensitivity sensitivity.safetensors --points 1000 --json
"""
_ROWS = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_sensitivity(parser)
    parser.add_argument(
        "--points", type=int, default=100, metavar="N", help="evenly spaced budgets to solve (default: %(default)s)"
    )
    add_menu(parser)
    add_price(parser.add_argument_group("advanced"))


def document(found: Frontier) -> Any:
    return plain(found)


def show(found: Frontier) -> None:
    from prismaquant.cli.tables import line, table

    step = max(1, len(found.optima) // _ROWS)
    shown = [*found.optima[:-1:step], found.optima[-1]]
    table(
        ("bits per weight", "bytes of Linears", "predicted KL"),
        [(f"{point.bpw:.4f}", format_bytes(point.bytes), f"{point.predicted_kl:.4g}") for point in shown],
        left=0,
    )
    line(f"{len(found.vertices)} vertices and {len(found.optima)} certified optima (all with --json)")
    band = "" if found.knee_band is None else " ({:.3f} to {:.3f} in 95 % of the resamples)".format(*found.knee_band)
    line(f"knee at {found.knee.bpw:.3f} bits per weight{band}, predicted KL {found.knee.predicted_kl:.4g}")
