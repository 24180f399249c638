"""Write a quantized checkpoint as a plain one, a plain one as NF4, or a recipe in the words of another tool."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from prismaquant.cli.common import add_output, add_threads, add_writing

FUNCTION = "convert"
LONG = True
EXAMPLES = """\
examples:
  prismaquant convert ./Llama-3.2-1B-4.75 -o ./Llama-3.2-1B-dense
  prismaquant convert ./Llama-3.2-1B-4.75 -o ./Llama-3.2-1B-f16 --dtype float16
  prismaquant convert ./Llama-3.2-1B -o ./Llama-3.2-1B-nf4 --to bitsandbytes
  prismaquant convert recipe.json -o recipe.yaml --to llm-compressor
  prismaquant convert ./Llama-3.2-1B-4.75 -o types.txt --to llama.cpp
  llama-quantize --tensor-type-file types.txt --token-embedding-type bf16 bf16.gguf out.gguf q8_0
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="the quantized folder; for bitsandbytes the plain one; for the recipe of another tool also a recipe",
    )
    add_output(parser)
    parser.add_argument(
        "--to",
        default="dense",
        metavar="NAME",
        help="dense; bitsandbytes (a whole model in NF4 with double quantization, to compare with); or the tool whose "
        "recipe OUT becomes: llm-compressor, modelopt, auto-round, llama.cpp (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype", default="bfloat16", metavar="NAME", help="of the weights: bfloat16 or float16 (default: %(default)s)"
    )
    machine = parser.add_argument_group("machine")
    add_writing(machine)
    add_threads(machine)


def document(out: Path) -> Any:
    return {"path": str(out)}


def show(out: Path) -> None:
    from prismaquant.cli.tables import line

    line(f"{out}: written")
