"""Measure how much every unit of a model matters, and what each scheme of the menu would cost it.

The result is one small file for 'prismaquant plan', which can be copied to another machine. The model is walked one
layer at a time; an interrupted run goes on with the next layer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prismaquant.cli.calibration import add_architecture, add_data, add_machine, add_probes, add_schemes
from prismaquant.cli.common import add_model, scheme_list

if TYPE_CHECKING:
    from prismaquant.files.sensitivity import Sensitivity, UnitSensitivity

FUNCTION = "probe"
LONG = True
EXAMPLES = """\
examples:
  prismaquant probe ./Llama-3.2-1B --data calibration.txt -o sensitivity.safetensors --work-dir ./work
  prismaquant probe ./Llama-3.2-1B --data calibration.txt -o sensitivity.safetensors --schemes NVFP4,FP8_DYNAMIC
  prismaquant probe ./Llama-3.2-1B --preview -o preview.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "-o", "--output", "--out", dest="out", metavar="SENSITIVITY", help="the file to write; it is used again"
    )
    add_schemes(parser)
    add_data(parser)
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--work-dir", metavar="DIR", help="keeps renderings for 'export', and the layers that are finished"
    )
    machine.add_argument("--keep-grams", action="store_true", help="keep the Grams of the inputs there, too")
    add_machine(machine)
    advanced = parser.add_argument_group("advanced")
    advanced.add_argument(
        "--prices",
        type=_price_list,
        default=(),
        metavar="A,B",
        help="to compute beside the usual ones: kfac, or measured, which is slow (default: none)",
    )
    advanced.add_argument(
        "--preset",
        metavar="NAME",
        help="solver: rtn, scale_sweep, fast or best (default: best, of a preview scale_sweep)",
    )
    advanced.add_argument(
        "--preview",
        action="store_true",
        help="a first look, in less than half the time: the price fisher-trace of weights that are only rounded",
    )
    add_architecture(advanced)
    add_probes(advanced)


def _price_list(text: str) -> tuple[str, ...]:
    """``"kfac,fisher-gram"`` as names."""
    return tuple(name.lower() for name in scheme_list(text))


def _coverage(sensitivity: Sensitivity) -> list[str]:
    """How many tokens the experts saw, and how many of them too few."""
    tokens = sorted(number for unit in sensitivity.units for number in unit.coverage)
    if not tokens:
        return []
    found = [
        f"tokens per expert, {len(tokens)} experts: least {tokens[0]}, median {tokens[len(tokens) // 2]}, "
        f"most {tokens[-1]}"
    ]
    pooled = sum(len(unit.pooled) for unit in sensitivity.units)
    if pooled and not sensitivity.calibrate_all_experts:
        found.append(
            f"note: {pooled} experts saw too few tokens, {tokens.count(0)} of them none, and were solved for with the "
            "statistics of all experts of their layer; more data would help"
        )
    return found


def document(sensitivity: Sensitivity) -> Any:
    """The document of the file, without its tensors."""
    from prismaquant.files import sensitivity as file

    return file.document(sensitivity)


def show(sensitivity: Sensitivity) -> None:
    from prismaquant.cli.tables import line, table

    schemes = tuple(dict.fromkeys(each.scheme for unit in sensitivity.units for each in unit.candidates))
    towers = [unit for unit in sensitivity.units if unit.tower]
    others = [unit for unit in sensitivity.units if not unit.tower]
    rows = [(price, *_sums(others, price, schemes)) for price in sensitivity.prices]
    rows += [(f"{price}, towers", *_sums(towers, price, schemes)) for price in sensitivity.prices if towers]
    line("expected KL divergence of all units in one scheme, nats per token")
    table(("price", *schemes), rows)
    if any("*" in cell for row in rows for cell in row):
        line("*: without the units whose shapes do not fit the scheme")
    for text in _coverage(sensitivity):
        line(text)
    line(f"{len(others)} units, {sensitivity.tokens} + {sensitivity.price_tokens} tokens")
    if towers:
        tokens = f"{sensitivity.tower_tokens} + {sensitivity.tower_price_tokens}"
        line(f"{len(towers)} units of towers, {tokens} tokens of prompts with images or audio")


def _sums(units: Sequence[UnitSensitivity], price: str, schemes: Sequence[str]) -> list[str]:
    """What all of ``units`` cost in each of ``schemes``; with a star if some have no such candidate."""
    cells = []
    for scheme in schemes:
        found = [each.prices[price] for unit in units for each in unit.candidates if each.scheme == scheme]
        cells.append(f"{sum(found):.4g}" + ("*" if len(found) < len(units) else ""))
    return cells
