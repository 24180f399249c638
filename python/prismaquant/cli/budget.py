"""The arguments of verbs that plan."""

from __future__ import annotations

import argparse

from prismaquant.cli.calibration import add_schemes
from prismaquant.pipeline.inputs import DEFAULT_PRICE

__all__ = ["add_budget", "add_menu", "add_price"]


def add_budget(parser: argparse.ArgumentParser) -> None:
    """The groups of the budget, of how the plan is to be served, and of the menu."""
    budget = parser.add_argument_group("budget (without one: a uniform checkpoint of the one scheme given)")
    choice = budget.add_mutually_exclusive_group()
    choice.add_argument("--bpw", type=float, metavar="BITS", help="bits per weight over the body's Linears, e.g. 4.75")
    choice.add_argument("--size", metavar="SIZE", help="bytes of all tensors of the folder, e.g. 20GiB")
    choice.add_argument(
        "--max-loss", type=float, metavar="KL", help="the fewest bytes whose predicted loss (nats per token) is no more"
    )
    budget.add_argument(
        "--fit",
        metavar="MEMORY",
        help="weights, KV cache and engine fit the memory of a device: 24GiB, or its name, e.g. RTX-5090; alone or "
        "beside --bpw or --size",
    )
    budget.add_argument(
        "--max-read-per-token",
        dest="max_read",
        metavar="SIZE",
        help="bytes of weights that decoding a token may read, of experts as many as are expected",
    )
    serving = parser.add_argument_group("serving (what --fit leaves room for)")
    serving.add_argument("--context", metavar="TOKENS", help="of a sequence, e.g. 32k (default: the model's longest)")
    serving.add_argument(
        "--kv",
        default="auto",
        metavar="DTYPE",
        help="of keys and values: auto (BF16), fp8 (the folder gets scales for it) or nvfp4 (default: %(default)s)",
    )
    serving.add_argument(
        "--concurrency", type=int, default=1, metavar="N", help="sequences at the same time (default: %(default)s)"
    )
    serving.add_argument(
        "--tensor-parallel",
        type=int,
        default=1,
        metavar="N",
        help="devices that share the model (default: %(default)s)",
    )
    serving.add_argument(
        "--reserve", metavar="SIZE", help="for the engine's activations on each device (default: an estimate)"
    )
    menu = add_menu(parser)
    menu.add_argument(
        "--a16-share",
        type=float,
        metavar="SHARE",
        help="with --activations auto: of the operations that may keep 16-bit activations, e.g. 0.2 (default: all)",
    )


def add_menu(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The group of what may be chosen."""
    menu = parser.add_argument_group("menu")
    add_schemes(menu)
    menu.add_argument(
        "--activations",
        default="native",
        metavar="MODE",
        help="native: those of each format; 16: never quantized; auto: what pays more (default: %(default)s)",
    )
    menu.add_argument(
        "--target-device",
        metavar="NAME",
        help="leave out what vLLM does not serve on this device or family, e.g. hopper (default: that of any --fit)",
    )
    menu.add_argument(
        "--pin",
        dest="pins",
        action="append",
        metavar="PATTERN=SCHEME",
        help="a scheme for units, by name, glob or re:REGEX, e.g. 're:.*o_proj=FP8'; repeat it, later ones win; also "
        "for what else would stay as it is: head, MTP layers, towers (inspect lists them)",
    )
    return menu


def add_price(advanced: argparse._ArgumentGroup) -> None:
    """``--price``, what is minimised."""
    advanced.add_argument(
        "--price",
        default=DEFAULT_PRICE,
        metavar="NAME",
        help="minimised: directional, directional-sequence, fisher-gram, fisher-trace or kfac (default: %(default)s)",
    )
