"""Quantize the bundled model at three budgets, once with a fifth of the operations in 16 bits, and uniformly.

Measures every result, prints a table and draws the picture.

Run by ``examples/quickstart.sh``; takes the output folder as its argument.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

from rich.console import Console  # noqa: TID253 (a script, not the library)
from rich.table import Table  # noqa: TID253

import prismaquant as pq
from prismaquant.evaluation.plot import Point, pareto_figure, save

EXAMPLES = Path(__file__).resolve().parent
MODEL = EXAMPLES / "models" / "tiny-llama"
CALIBRATION = EXAMPLES / "data" / "calibration.txt"  # sampled from the model itself
HELD_OUT = EXAMPLES / "data" / "evaluation.txt"  # a second sample, disjoint from the first

#: name -> arguments of `quantize`
BUILDS = {
    "4.75 bits": {"bpw": 4.75},
    "5.5 bits": {"bpw": 5.5},
    "6.0 bits": {"bpw": 6.0},
    "4.75 bits, A16": {"bpw": 4.75, "activations": "auto", "a16_share": 0.2},
    "NVFP4": {"schemes": ("NVFP4",)},
    "FP8": {"schemes": ("FP8_DYNAMIC",)},
}


def main(output: Path) -> None:
    rows = []
    for name, arguments in BUILDS.items():
        start = time.perf_counter()
        folder = output / name.replace(",", "").replace(" ", "-").lower()
        report = pq.quantize(
            MODEL,
            folder,
            **arguments,
            data=CALIBRATION,
            samples=96,
            price_samples=24,
            seq_len=256,
            work_dir=output / "work",  # the builds share one measurement
            force=True,
        )
        made = time.perf_counter() - start
        measured = pq.evaluate(folder, source=MODEL, data=HELD_OUT, out=output / "work" / f"{folder.name}.json")
        rows.append(
            {
                "name": name,
                "uniform": "schemes" in arguments,
                "bytes": report.export.manifest.tensor_bytes,
                "bpw": report.plan.bpw,
                "predicted_kl": report.plan.predicted_kl,
                "kl": measured.kl,
                "top1": measured.top1,
                "seconds": made,
            }
        )
        sys.stderr.write(f"{name}: made in {made:.1f} s, {measured}\n")
    rows.sort(key=lambda row: row["bpw"])
    (output / "results.json").write_text(json.dumps(rows, indent=1, default=dataclasses.asdict) + "\n")
    show(rows)
    figure = pareto_figure(
        [Point(row["name"], row["bpw"], row["kl"], row["uniform"]) for row in rows],
        title="tiny-llama: what each bit buys",
    )
    for suffix in ("svg", "png"):
        save(figure, output / f"pareto.{suffix}")
    print(f"{output}: results.json, pareto.svg, pareto.png, and the six checkpoints")


def show(rows: list[dict]) -> None:
    table = Table(title="tiny-llama, KL to the original on held-out text", title_justify="left")
    for column in ("build", "bytes", "bits per weight", "KL x 1000 [95 %]", "predicted", "line", "top-1", "seconds"):
        table.add_column(column, justify="left" if column == "build" else "right")
    for row in rows:
        predicted = "-" if row["predicted_kl"] is None else f"{1000 * row['predicted_kl']:.2f}"
        table.add_row(
            row["name"],
            f"{row['bytes']:,}",
            f"{row['bpw']:.3f}",
            "{:.2f} [{:.2f}, {:.2f}]".format(*(1000 * x for x in (row["kl"].value, row["kl"].low, row["kl"].high))),
            predicted,
            f"{1000 * line_between_uniform(rows, row['bpw']):.2f}",
            f"{row['top1'].value:.1%}",
            f"{row['seconds']:.1f}",
        )
    console = Console(width=110)
    console.print(table)
    console.print("line: the KL that the straight line between the two uniform builds has at these bits")
    above = [r["name"] for r in rows if not r["uniform"] and r["kl"].value > line_between_uniform(rows, r["bpw"])]
    console.print(f"above the line: {', '.join(above)}" if above else "every mixed build lies on or below it")


def line_between_uniform(rows: list[dict], bpw: float) -> float:
    low, high = sorted((row for row in rows if row["uniform"]), key=lambda row: row["bpw"])
    share = (bpw - low["bpw"]) / (high["bpw"] - low["bpw"])
    return low["kl"].value + share * (high["kl"].value - low["kl"].value)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
