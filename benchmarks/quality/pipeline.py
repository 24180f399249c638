"""What `quantize` reaches: builds at several budgets, measured with the weights that were priced and polished.

    python benchmarks/quality/pipeline.py MODEL --calibration TEXT --evaluation TEXT [--bpw 4.75,5.0]

For every budget a build that leaves all inputs alone, one that leaves those of NVFP4 alone, one that quantizes them,
and one that leaves them alone for a fifth of the operations, each measured on held-out text before and after the
polish, by `evaluate`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import prismaquant as pq

MENUS = {
    "NVFP4A16 + FP8A16": {"schemes": ("NVFP4A16", "FP8A16", "BF16")},
    "NVFP4A16 + FP8": {"schemes": ("NVFP4A16", "FP8_DYNAMIC", "BF16")},
    "NVFP4 + FP8": {"schemes": ("NVFP4", "FP8_DYNAMIC", "BF16")},
    "NVFP4 + FP8, a fifth A16": {"activations": "auto", "a16_share": 0.2},
}


def main() -> None:
    """Measures, prints and writes what the command line asks for."""
    options = _parser().parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for menu, arguments in MENUS.items():
            for bpw in options.bpw:
                rows.append({"menu": menu, **build(options, arguments, bpw, folder)})
                print(rows[-1], flush=True)
    table(rows)
    options.out.write_text(json.dumps(rows, indent=1) + "\n")


def build(options: argparse.Namespace, arguments: dict[str, Any], bpw: float, folder: Path) -> dict[str, float]:
    """One row of the table; KL in nats per token."""
    row: dict[str, float] = {}
    for polish in (False, True):
        start = time.perf_counter()
        report = pq.quantize(
            options.model,
            folder / "out",
            bpw=bpw,
            data=options.calibration,
            **arguments,
            samples=options.samples,
            price_samples=options.price_samples,
            seq_len=options.seq_len,
            polish=polish,
            work_dir=folder / "work",
            force=True,
        )
        row["seconds, polish" if polish else "seconds"] = time.perf_counter() - start
        measured = pq.evaluate(
            folder / "out",
            source=options.model,
            data=options.evaluation,
            tokens=options.windows * options.seq_len,
            seq_len=options.seq_len,
        )
        row["bpw"], row["predicted"] = report.plan.bpw, report.plan.predicted_kl or 0.0
        row["after" if polish else "before"] = measured.kl.value
    return row


def table(rows: list[dict]) -> None:
    """One line for each build, KL times 1000."""
    print("| menu | bits per weight | predicted | before the polish | after | ratio | seconds for the polish |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        kl = [f"{1e3 * row[name]:.2f}" for name in ("predicted", "before", "after")]
        print(
            f"| {row['menu']} | {row['bpw']:.3f} | {' | '.join(kl)} | {row['after'] / row['before']:.3f} "
            f"| {row['seconds, polish']:.0f} |"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--calibration", type=Path, required=True, metavar="TEXT")
    parser.add_argument("--evaluation", type=Path, required=True, metavar="TEXT", help="held-out text")
    parser.add_argument("--bpw", type=_numbers, default=[4.75, 5.0], metavar="A,B", help="budgets")
    parser.add_argument("--samples", type=int, default=128, metavar="N", help="windows to solve for")
    parser.add_argument("--price-samples", type=int, default=32, metavar="N", help="windows that set prices")
    parser.add_argument("--windows", type=int, default=64, metavar="N", help="windows of held-out text")
    parser.add_argument("--seq-len", type=int, default=256, metavar="N")
    parser.add_argument("--out", type=Path, default=Path("pipeline.json"))
    return parser


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
