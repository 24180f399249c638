"""The arguments of verbs that measure the model on calibration data."""

from __future__ import annotations

import argparse

from prismaquant.cli.common import add_threads, scheme_list
from prismaquant.formats import DEFAULT_MENU, list_schemes

__all__ = ["add_architecture", "add_data", "add_machine", "add_probes", "add_schemes"]


def add_schemes(group: argparse._ActionsContainer) -> None:
    """``--schemes``, the menu."""
    group.add_argument(
        "--schemes",
        "--formats",
        type=scheme_list,
        default=DEFAULT_MENU,
        metavar="A,B",
        help=f"the menu, of {', '.join(list_schemes())} (default: {','.join(DEFAULT_MENU)})",
    )


def add_data(parser: argparse.ArgumentParser, *, needed: str = "") -> None:
    """The group of what is measured on; ``needed`` says when, if not always."""
    data = parser.add_argument_group("calibration data")
    data.add_argument(
        "--data",
        action="append",
        metavar="SPEC",
        help="text (.txt, .jsonl), token ids (.npy) or a folder of them, as PATH[:n=WINDOWS][,weight=W][,split=NAME]; "
        "'self' is sampled from the model, 'default' is a built-in text; repeat it to mix several "
        f"(default: default{needed})",
    )
    data.add_argument("--samples", type=int, default=128, metavar="N", help="windows (default: %(default)s)")
    data.add_argument(
        "--price-samples",
        type=int,
        default=32,
        metavar="N",
        help="other windows, for the prices (default: %(default)s)",
    )
    data.add_argument("--seq-len", type=int, default=512, metavar="N", help="tokens per window (default: %(default)s)")
    data.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the draw of windows and probes (default: %(default)s)"
    )


def add_machine(machine: argparse._ArgumentGroup) -> None:
    """What the measurement may use of the machine."""
    machine.add_argument(
        "--restart", action="store_true", help="discard the stage files that are there, instead of going on from them"
    )
    machine.add_argument(
        "--max-memory",
        metavar="SIZE",
        help="memory to use, e.g. 24GiB; hidden states wait on disk where they do not fit (default: half of all)",
    )
    machine.add_argument(
        "--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1, ... (default: %(default)s)"
    )
    add_threads(machine)


def add_architecture(advanced: argparse._ArgumentGroup) -> None:
    """How experts are calibrated, what beside the layers is measured, and whether unknown parts stop the run."""
    advanced.add_argument(
        "--calibrate-all-experts",
        action="store_true",
        help="solve experts for the inputs of all tokens, not only of those routed to them (slower)",
    )
    advanced.add_argument(
        "--mtp",
        action="store_true",
        help="measure the layer that predicts a further token, too, by the loss of its predictions, so that it is "
        "quantized as the others are (default: it stays as it is)",
    )
    advanced.add_argument(
        "--tower-data",
        nargs="+",
        metavar="PATH",
        help="measure vision and audio towers, too, on these prompts: .safetensors (what the model's processor returns "
        "for one), .jsonl (messages that name images by path), or folders of them (default: towers stay as they are)",
    )
    advanced.add_argument(
        "--strict",
        action="store_true",
        help="refuse a model with weights in its layers that its architecture entry does not know, instead of keeping "
        "them as they are",
    )


def add_probes(advanced: argparse._ArgumentGroup) -> None:
    """How many gradients are sampled."""
    advanced.add_argument(
        "--probes", type=int, default=1, metavar="N", help="gradient probes per window (default: %(default)s)"
    )
    advanced.add_argument(
        "--price-probes",
        type=int,
        default=8,
        metavar="N",
        help="those of windows for the prices (default: %(default)s)",
    )
