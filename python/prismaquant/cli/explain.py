"""Why the units of a recipe have their schemes, what was near, what the next byte would buy, and how sure that is."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from prismaquant.cli.common import add_model, add_plan, add_sensitivity, plain

if TYPE_CHECKING:
    from prismaquant.planning import Explanation
    from prismaquant.planning.explanation import UnitExplanation

FUNCTION = "explain"
LONG = False
EXAMPLES = """\
examples:
  prismaquant explain ./Llama-3.2-1B --plan recipe.json --sensitivity sensitivity.safetensors
  prismaquant explain ./Llama-3.2-1B model.layers.3.mlp.down_proj --plan recipe.json --sensitivity s.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("unit", metavar="UNIT", nargs="?", help="name of a unit or of a Linear (default: all)")
    add_plan(parser)
    add_sensitivity(parser)


def document(found: Explanation) -> Any:
    return plain(found)


def show(found: Explanation) -> None:
    from prismaquant.cli.tables import line, table

    line(f"the next byte would save {found.byte_price:.4g} nats per token")
    if found.agreement is not None and found.regret is not None:
        line(
            f"on resampled windows {found.agreement:.1%} of the bytes keep their scheme; those plans lose "
            f"{found.regret:.2%} more"
        )
    if len(found.units) == 1:
        _show_unit(found.units[0])
        return
    table(
        ("unit", "scheme", "keeps it", "why"),
        [(unit.name, unit.scheme, _share(unit.agreement), unit.why) for unit in found.units],
        left=2,
    )


def _show_unit(unit: UnitExplanation) -> None:
    from prismaquant.cli.tables import line, table

    line(f"{unit.name} is {unit.scheme}: {unit.why}")
    if len(unit.linears) > 1:
        line(f"it holds {len(unit.linears)} Linears, which engines fuse: {', '.join(unit.linears[:6])}")
    table(
        ("scheme", "bytes", "price", "regret", "from bits per weight"),
        [
            (
                option.scheme + (" *" if option.scheme == unit.scheme else ""),
                str(option.bytes),
                f"{option.price:.4g}" + ("" if option.standard_error is None else f" +- {option.standard_error:.2g}"),
                f"{option.regret:.4g}",
                "never" if option.bpw is None else f"{option.bpw:.3f}",
            )
            for option in unit.options
        ],
    )
    if unit.agreement is not None:
        line(f"it keeps its scheme in {unit.agreement:.1%} of the resamples")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
