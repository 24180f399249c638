"""Turn a model folder into a mixed-precision checkpoint that vLLM and transformers load.

Measures how much every Linear matters, renders it in every scheme of the menu, chooses the best plan within the budget
(exactly), writes the folder, and reads it back."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from prismaquant.cli.common import add_model, add_threads, plain, scheme_list
from prismaquant.formats import DEFAULT_MENU, list_schemes
from prismaquant.pipeline.inputs import DEFAULT_PRICE
from prismaquant.quantity import format_bytes

if TYPE_CHECKING:
    from prismaquant.pipeline import QuantizeReport

FUNCTION = "quantize"
LONG = True
EXAMPLES = """\
examples:
  prismaquant quantize ./Llama-3.2-1B -o ./Llama-3.2-1B-4.75 --bpw 4.75 --data calibration.txt
  prismaquant quantize ./Llama-3.2-1B -o ./Llama-3.2-1B-1GB --size 1GB --data calibration.jsonl --work-dir ./work
  prismaquant quantize ./Llama-3.2-1B -o ./Llama-3.2-1B-FP8 --schemes FP8_DYNAMIC
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("-o", "--output", "--out", dest="out", required=True, metavar="OUT", help="the new folder")
    budget = parser.add_argument_group(
        "budget (one of them; without one: a uniform checkpoint of the one scheme given)"
    )
    choice = budget.add_mutually_exclusive_group()
    choice.add_argument("--bpw", type=float, metavar="BITS", help="bits per weight over the body's Linears, e.g. 4.75")
    choice.add_argument("--size", metavar="SIZE", help="bytes of all tensors of the folder, e.g. 20GiB")
    budget.add_argument(
        "--schemes",
        "--formats",
        type=scheme_list,
        default=DEFAULT_MENU,
        metavar="A,B",
        help=f"the menu, of {', '.join(list_schemes())} (default: {','.join(DEFAULT_MENU)})",
    )
    data = parser.add_argument_group("calibration data")
    data.add_argument("--data", metavar="FILE", help="text (.txt, .jsonl) or token ids (.npy); needed with a budget")
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
    machine = parser.add_argument_group("machine")
    machine.add_argument("--work-dir", metavar="DIR", help="stage files, used again by later runs (default: OUT.work)")
    machine.add_argument("--force", action="store_true", help="replace OUT if it exists")
    machine.add_argument("--shard-size", default="5GB", metavar="SIZE", help="largest shard (default: %(default)s)")
    add_threads(machine)
    advanced = parser.add_argument_group("advanced")
    advanced.add_argument(
        "--price",
        default=DEFAULT_PRICE,
        metavar="NAME",
        help="minimised: directional, directional-sequence, fisher-gram, fisher-trace or kfac (default: %(default)s)",
    )
    advanced.add_argument(
        "--preset",
        metavar="NAME",
        help="solver: rtn, scale_sweep, fast or best (default: best with calibration text, else scale_sweep)",
    )
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


def document(report: QuantizeReport) -> Any:
    return plain(report)


def show(report: QuantizeReport) -> None:
    from prismaquant.cli.tables import line, table

    decided, manifest = report.plan, report.export.manifest
    schemes = [name for name in list_schemes() if any(unit.scheme == name for unit in decided.units)]
    units = Counter((_every_layer(unit.name), unit.scheme) for unit in decided.units)
    sizes = Counter[str]()
    for unit in decided.units:
        sizes[unit.scheme] += unit.bytes
    rows = [(kind, *(str(units[kind, name] or "-") for name in schemes)) for kind in dict.fromkeys(k for k, _ in units)]
    table(("units", *schemes), [*rows, ("bytes", *(format_bytes(sizes[name]) for name in schemes))])
    line(f"{decided.bpw:.4f} bits per weight of the body, {manifest.bits_per_parameter:.4f} per parameter of the model")
    if decided.predicted_kl is not None:
        proof = (
            "" if decided.lower_bound is None else f" (no plan within the budget is below {decided.lower_bound:.4g})"
        )
        error = "" if decided.standard_error is None else f" +- {decided.standard_error:.2g}"
        line(f"predicted KL {decided.predicted_kl:.4g}{error} nats per token{proof}")
    notes = Counter(f"{_every_layer(note.unit)} {_every_layer(note.text)}" for note in decided.notes)
    for text, count in notes.items():
        line(f"note: {text}" + (f" [{count} units]" if count > 1 else ""))
    if report.work_dir is not None:
        line(f"stage files for other budgets: {report.work_dir} (the checkpoint does not need them)")
    line(f"{report.export.path}: {format_bytes(manifest.tensor_bytes)}, written and verified")


def _every_layer(text: str) -> str:
    """``model.layers.3.mlp.down_proj`` -> ``model.layers.*.mlp.down_proj``."""
    return re.sub(r"\.\d+\.", ".*.", text)
