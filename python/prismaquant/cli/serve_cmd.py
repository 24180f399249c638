"""Print the vllm serve command for a written checkpoint, what engines get wrong about it, and what was not tested."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prismaquant.exporting.serve import ServeCommand

FUNCTION = "serve_command"
LONG = False
EXAMPLES = """\
examples:
  prismaquant serve-cmd ./Llama-3.2-1B-4.75
  prismaquant serve-cmd ./Llama-3.2-1B-4.75 --context 32k --kv fp8
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the written folder")
    parser.add_argument("--context", metavar="TOKENS", help="of a sequence, e.g. 32k (default: as planned, or vLLM's)")
    parser.add_argument("--kv", metavar="DTYPE", help="of the KV cache: auto, fp8 or nvfp4 (default: as planned)")
    parser.add_argument("--tensor-parallel", type=int, metavar="N", help="devices that share it (default: as planned)")
    parser.add_argument("--text-only", action="store_true", help="serve a model that also sees or hears for text alone")


def document(found: ServeCommand) -> Any:
    return {"command": found.text, "arguments": list(found.arguments), "notes": list(found.notes)}


def show(found: ServeCommand) -> None:
    from prismaquant.cli.tables import line

    line(found.text)
    for note in found.notes:
        sys.stderr.write(f"note: {note}\n")
