"""Read a written checkpoint back, decode every Linear and check the rules under which engines load it.

With --source every Linear is compared to the model it was made from. Needs neither torch nor a GPU."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from prismaquant.cli.common import add_threads, plain
from prismaquant.errors import VerificationError
from prismaquant.formats import BF16

if TYPE_CHECKING:
    from prismaquant.exporting.report import VerifyReport

FUNCTION = "verify"
LONG = True
EXAMPLES = """\
examples:
  prismaquant verify ./Llama-3.2-1B-4.75
  prismaquant verify ./Llama-3.2-1B-4.75 --source ./Llama-3.2-1B
  prismaquant verify ./Llama-3.2-1B-4.75 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the folder to check")
    parser.add_argument("--source", metavar="MODEL", help="the folder it was made from")
    parser.add_argument(
        "--tensor-parallel", type=int, default=1, metavar="N", help="devices that share it (default: %(default)s)"
    )
    add_threads(parser.add_argument_group("machine"))


def document(report: VerifyReport) -> Any:
    return {"ok": report.ok, **plain(report)}


def show(report: VerifyReport) -> None:
    from prismaquant.cli.tables import line, table

    if report.source_compared:
        by_scheme: dict[str, list[float]] = {}
        for check in report.linears:
            if check.snr_db is not None:
                by_scheme.setdefault(check.scheme, []).append(check.snr_db)
        table(
            ("scheme", "linears", "least SNR", "largest"),
            [(name, str(len(snr)), _decibels(min(snr)), _decibels(max(snr))) for name, snr in by_scheme.items()],
        )
    for warning in report.warnings:
        line(f"warning: {warning}")
    for failure in report.failures:
        line(f"error: {failure}")
    compared = "compared to its source" if report.source_compared else "not compared to a source (--source)"
    outcome = "ok" if report.ok else f"{len(report.failures)} errors"
    quantized = sum(check.scheme != BF16 for check in report.linears)
    line(f"{report.path}: {outcome}, {len(report.linears)} Linears decoded, {quantized} of them quantized, {compared}")


def _decibels(snr: float) -> str:
    return "lossless" if math.isinf(snr) else f"{snr:.1f} dB"


def exit_code(report: VerifyReport) -> int:
    return 0 if report.ok else VerificationError.exit_code
