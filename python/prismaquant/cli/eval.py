"""Measure what a checkpoint lost: KL divergence to its source over the full vocabulary, top-1 agreement, perplexity.

Loads both folders as a user would, with transformers and compressed-tensors."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prismaquant.files.evaluation import Evaluation

FUNCTION = "evaluate"
LONG = True
EXAMPLES = """\
examples:
  prismaquant eval ./Llama-3.2-1B-4.75 --source ./Llama-3.2-1B --data held-out.txt
  prismaquant eval ./Llama-3.2-1B-4.75 --source ./Llama-3.2-1B --data held-out.npy --tokens 65536 -o eval.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the folder to measure")
    parser.add_argument("--source", required=True, metavar="MODEL", help="the folder it was made from")
    parser.add_argument(
        "--data", required=True, metavar="FILE", help="held-out text (.txt, .jsonl) or token ids (.npy)"
    )
    parser.add_argument(
        "--tokens", type=int, default=16384, metavar="N", help="tokens to measure (default: %(default)s)"
    )
    parser.add_argument(
        "--seq-len", type=int, default=256, metavar="N", help="tokens per window (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the draw of windows (default: %(default)s)"
    )
    parser.add_argument(
        "-o", "--output", "--out", dest="out", metavar="FILE", help="keep the result as JSON, and use it again"
    )


def document(evaluation: Evaluation) -> Any:
    """The same document that the file of ``--output`` holds."""
    from prismaquant.files import evaluation as file
    from prismaquant.files import record

    return record.document(evaluation, file.SCHEMA)


def show(evaluation: Evaluation) -> None:
    from prismaquant.cli.tables import table

    table(
        ("measure", "value", "95 % interval"),
        [
            ("KL to the source, nats per token", f"{evaluation.kl.value:.4g}", _interval(evaluation.kl, "{:.4g}")),
            ("99th percentile of KL", f"{evaluation.kl_p99:.4g}", ""),
            ("top-1 agreement", f"{evaluation.top1.value:.2%}", _interval(evaluation.top1, "{:.2%}")),
            ("perplexity (source)", f"{evaluation.perplexity:.3f} ({evaluation.source_perplexity:.3f})", ""),
            ("tokens", f"{evaluation.tokens}", ""),
        ],
    )


def _interval(estimate: Any, pattern: str) -> str:
    return f"{pattern.format(estimate.low)} .. {pattern.format(estimate.high)}"
