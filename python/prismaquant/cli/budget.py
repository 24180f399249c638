"""The arguments of verbs that plan."""

from __future__ import annotations

import argparse

from prismaquant.cli.calibration import add_schemes
from prismaquant.pipeline.inputs import DEFAULT_PRICE

__all__ = ["add_budget", "add_price"]


def add_budget(parser: argparse.ArgumentParser) -> None:
    """The group of the budget, and the menu."""
    budget = parser.add_argument_group(
        "budget (one of them; without one: a uniform checkpoint of the one scheme given)"
    )
    choice = budget.add_mutually_exclusive_group()
    choice.add_argument("--bpw", type=float, metavar="BITS", help="bits per weight over the body's Linears, e.g. 4.75")
    choice.add_argument("--size", metavar="SIZE", help="bytes of all tensors of the folder, e.g. 20GiB")
    add_schemes(budget)


def add_price(advanced: argparse._ArgumentGroup) -> None:
    """``--price``, what is minimised."""
    advanced.add_argument(
        "--price",
        default=DEFAULT_PRICE,
        metavar="NAME",
        help="minimised: directional, directional-sequence, fisher-gram, fisher-trace or kfac (default: %(default)s)",
    )
