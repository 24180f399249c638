"""Turn a model folder into a mixed-precision checkpoint that vLLM and transformers load.

Measures how much every Linear matters, renders it in every scheme of the menu, chooses the best plan within the budget
(exactly), writes the folder, and reads it back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from prismaquant.cli.budget import add_budget, add_price
from prismaquant.cli.calibration import add_architecture, add_data, add_machine, add_probes
from prismaquant.cli.common import add_model, add_output, add_writing, plain
from prismaquant.cli.summary import show_plan, show_polish, show_validated
from prismaquant.quantity import format_bytes

if TYPE_CHECKING:
    from prismaquant.pipeline import QuantizeReport

FUNCTION = "quantize"
LONG = True
EXAMPLES = """\
examples:
  prismaquant quantize ./Llama-3.2-1B -o ./Llama-3.2-1B-4.75 --bpw 4.75 --data calibration.txt
  prismaquant quantize ./Llama-3.2-1B -o ./Llama-3.2-1B-1GB --size 1GB --data calibration.jsonl --work-dir ./work
  prismaquant quantize ./Llama-3.2-1B -o ./Llama-3.2-1B-4.5 --bpw 4.5 --data chats.jsonl:n=100 --data prose/
  prismaquant quantize ./Llama-3.2-1B -o ./Llama-3.2-1B-FP8 --schemes FP8_DYNAMIC
  prismaquant quantize ./Qwen3-VL-8B -o ./Qwen3-VL-8B-5.0 --bpw 5 --data prose.txt --tower-data images.jsonl
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_output(parser)
    add_budget(parser)
    add_data(parser, needed=", where data is needed")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--work-dir", metavar="DIR", help="stage files, used again by later runs (default: OUT.work)")
    add_writing(machine)
    add_machine(machine)
    advanced = parser.add_argument_group("advanced")
    add_price(advanced)
    advanced.add_argument(
        "--preset",
        metavar="NAME",
        help="solver: rtn, scale_sweep, fast or best (default: best where data is used, else scale_sweep)",
    )
    advanced.add_argument(
        "--no-polish",
        dest="polish",
        action="store_false",
        help="write the renderings that were priced, without solving the chosen units once more",
    )
    advanced.add_argument(
        "--validate",
        type=int,
        default=0,
        metavar="N",
        help="build and measure N plans up to the budget and the uniform ones that fit; write the best "
        "(default: %(default)s)",
    )
    add_architecture(advanced)
    add_probes(advanced)


def document(report: QuantizeReport) -> Any:
    return plain(report)


def show(report: QuantizeReport) -> None:
    from prismaquant.cli.tables import line

    if report.validated:
        show_validated(report.validated)
    manifest = report.export.manifest
    show_plan(report.plan, manifest.bits_per_parameter)
    show_polish(manifest.polish, priced=report.plan.predicted_kl is not None)
    if report.work_dir is not None:
        line(f"stage files for other budgets: {report.work_dir} (the checkpoint does not need them)")
    line(f"{report.export.path}: {format_bytes(manifest.tensor_bytes)}, written and verified")
