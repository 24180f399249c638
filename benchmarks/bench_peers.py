"""Time of the codecs beside other libraries doing the same work on one core. See README.md for how to read the table.

    python benchmarks/bench_peers.py [--rounds 7] [--size 4096] [--only TEXT] [--no-compile] [--json FILE]

Contenders of the same work take turns, round after round; the times are medians of the processor time of the process.
All make new outputs, as their functions do, in memory that glibc keeps: with --fresh-pages every output also pays for
new pages, which depends on the state of the machine more than on the library. ``out=`` marks ours into an array that is
there already.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import PEERS, Contender, ours
from report import Line, print_table, verdict

#: Has to be set before the process starts.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
KEPT_PAGES = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
PACKAGES = ("torch", "ml_dtypes", "compressed-tensors", "torchao", "gguf", "bitsandbytes")
Work = tuple[str, str, str]  # format, direction, dtype


def goals(work: Work, peers: list[tuple[str, float]]) -> dict[str, float]:
    """How many times our time each peer is meant to take: plain casts all, of other formats the fastest peer.

    The fastest of what torch.compile made is held to it too. bitsandbytes is there for comparison.
    """
    if work[0].endswith("_tensor"):
        return {name: 10.0 if name == "ml_dtypes" else 4.0 for name, _ in peers}
    found = {}
    for compiled in (False, True):
        group = [(seconds, name) for name, seconds in peers if ("compile" in name) == compiled]
        if group and work[0] != "nf4":
            found[min(group)[1]] = 10.0
    return found


def find(weights: list[torch.Tensor], only: str, compiled: bool) -> tuple[dict[Work, list[Contender]], list[str]]:
    """Contenders by work, and the peers that are not installed."""
    groups: dict[Work, list[Contender]] = {}
    absent: list[str] = []
    for peer, contenders in PEERS.items():
        if peer == "torch.compile" and not compiled:
            absent.append(peer)
            continue
        try:
            for weight in weights:
                for c in contenders(weight):
                    if only in f"{c.format} {c.direction} {c.dtype}":
                        groups.setdefault((c.format, c.direction, c.dtype), []).append(c)
        except ImportError:
            absent.append(peer)
    for work, others in groups.items():
        source = weights[1] if work[1] == "encode" and work[2] == "bfloat16" else weights[0]
        others[:0] = ours(*work, source)
    return groups, absent


def check(contenders: list[Contender]) -> None:
    """Refuse an encoder that is said to make our codes and does not."""
    mine = codes(contenders[0])
    for c in contenders[1:]:
        share = float(np.mean(codes(c).reshape(-1) == mine.reshape(-1))) if c.same_codes else 1.0
        if share < 0.999:
            raise SystemExit(f"{c.name}: {share:.2%} of the codes of {c.format} from {c.dtype} are ours")


def codes(contender: Contender) -> np.ndarray:
    found: Any = contender.run()[0]
    if isinstance(found, torch.Tensor):
        found = found.contiguous().view(torch.uint8).numpy()
    return np.ascontiguousarray(found).view(np.uint8)


def measure(contenders: list[Contender], rounds: int) -> list[float]:
    """Median seconds of each."""
    times: list[list[float]] = [[] for _ in contenders]
    for turn in range(rounds + 1):
        for c, mine in zip(contenders, times, strict=True):
            start = time.process_time()
            c.run()
            if turn > 0:  # the first one warms up
                mine.append(time.process_time() - start)
    return [statistics.median(mine) for mine in times]


def rows_of(work: Work, contenders: list[Contender], seconds: list[float], elements: int) -> list[dict[str, Any]]:
    rows = []
    peers = [(c.name, s) for c, s in zip(contenders, seconds, strict=True) if not c.name.startswith("prismaquant")]
    wanted = goals(work, peers)
    for c, s in zip(contenders, seconds, strict=True):
        faster = None if c.name.startswith("prismaquant") else s / seconds[0]
        goal = wanted.get(c.name)
        rows.append(
            {
                "format": work[0],
                "direction": work[1],
                "dtype": work[2],
                "name": c.name,
                "milliseconds": round(s * 1e3, 3),
                "elements_per_second": round(elements / s),
                "ours_is_faster": None if faster is None else round(faster, 2),
                "goal": goal,
                "met": None if goal is None or faster is None else faster >= goal,
            }
        )
    return rows


def lines(rows: list[dict[str, Any]]) -> list[Line]:
    return [
        Line(
            f"{row['format']} {row['direction']} {row['dtype']}",
            row["name"],
            f"{row['milliseconds']:.2f} ms",
            "" if row["ours_is_faster"] is None else f"{row['ours_is_faster']:.1f}x our time",
            verdict(f">= {row['goal']}x", row["met"]),
        )
        for row in rows
    ]


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def run(rounds: int, size: int, only: str, compiled: bool) -> dict[str, Any]:
    """Rows of the table, the versions of the peers, and which of them are absent."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(1)
    weight = torch.randn(size, size) * 0.02
    groups, absent = find([weight, weight.to(torch.bfloat16)], only, compiled)
    rows = []
    gc.disable()
    for work, contenders in sorted(groups.items()):
        if work[1] == "encode":
            check(contenders)
        rows += rows_of(work, contenders, measure(contenders, rounds), size * size)
        gc.collect()
    return {"size": size, "rounds": rounds, "versions": versions(), "absent": absent, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=4096, help="rows and columns of the matrix")
    parser.add_argument("--only", default="", help="part of 'format direction dtype'")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile, which takes minutes to start")
    parser.add_argument("--fresh-pages", action="store_true", help="let glibc give memory back after every call")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    wanted = ONE_THREAD if arguments.fresh_pages else ONE_THREAD | KEPT_PAGES
    if not wanted.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)
    result = run(arguments.rounds, arguments.size, arguments.only, not arguments.no_compile)
    print_table(lines(result["rows"]))
    if result["absent"]:
        print("left out:", ", ".join(result["absent"]))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
