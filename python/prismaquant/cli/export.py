"""Write the checkpoint that a recipe describes: a compressed-tensors folder that vLLM and transformers load."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from prismaquant.cli.common import add_model, add_output, add_plan, add_threads, add_writing, plain
from prismaquant.cli.summary import show_plan, show_polish
from prismaquant.quantity import format_bytes

if TYPE_CHECKING:
    from prismaquant.exporting.run import ExportReport

FUNCTION = "export"
LONG = True
EXAMPLES = """\
examples:
  prismaquant export ./Llama-3.2-1B --plan recipe.json -o ./out --work-dir ./work --sensitivity sensitivity.safetensors
  prismaquant export ./Llama-3.2-1B --plan fp8-everywhere.json -o ./Llama-3.2-1B-FP8
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_output(parser)
    add_plan(parser)
    parser.add_argument(
        "--sensitivity",
        metavar="FILE",
        help="made by 'prismaquant probe'; needed for schemes that store the range of inputs: NVFP4, FP8_STATIC",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--work-dir", metavar="DIR", help="where 'prismaquant probe' kept its renderings")
    machine.add_argument("--renderings", metavar="DIR", help="where 'prismaquant polish' put its own for this recipe")
    add_writing(machine)
    add_threads(machine)


def document(report: ExportReport) -> Any:
    return plain(report)


def show(report: ExportReport) -> None:
    from prismaquant.cli.tables import line

    manifest = report.manifest
    show_plan(manifest.plan, manifest.bits_per_parameter)
    show_polish(manifest.polish, priced=manifest.plan.predicted_kl is not None)
    line(f"{report.path}: {format_bytes(manifest.tensor_bytes)}, written ('prismaquant verify' reads it back)")
