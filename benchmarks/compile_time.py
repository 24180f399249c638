"""Compile time of the headers beside that of xsimd's. See README.md for how to read the table.

    python benchmarks/compile_time.py [--rounds 7] [--compiler g++] [--json FILE]

Every translation unit is one include; units take turns, round after round. Times are medians of the processor time of
the compiler. xsimd is found where the compiler finds it (Debian: libxsimd-dev).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from report import Line, print_table, verdict

INCLUDE = Path(__file__).resolve().parent.parent / "include"
BASE = "xsimd/xsimd.hpp"
#: Header -> at most how many times the time of xsimd's.
GOALS = {BASE: None, "prismaquant/prismaquant.hpp": 2.0, "prismaquant/formats/nvfp4.hpp": 0.5}
#: What is done with it -> arguments of the compiler.
MODES = {
    "syntax only": ["-fsyntax-only"],
    "syntax only, AVX2": ["-fsyntax-only", "-mavx2"],
    "object": ["-c"],
    "object, AVX2": ["-c", "-mavx2"],
}


def seconds(command: list[str], folder: str) -> float:
    """User and system time of one run."""
    process = subprocess.Popen(command, cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"failed: {' '.join(command)}")
    return usage.ru_utime + usage.ru_stime


def run(rounds: int, compiler: str) -> dict[str, Any]:
    """Rows of the table, and the version of the compiler."""
    path = shutil.which(compiler)
    if path is None:
        raise SystemExit(f"{compiler} is not installed")
    jobs = [(header, mode) for mode in MODES for header in GOALS]
    times: dict[tuple[str, str], list[float]] = {job: [] for job in jobs}
    with tempfile.TemporaryDirectory() as folder:
        for i, header in enumerate(GOALS):
            Path(folder, f"{i}.cpp").write_text(f"#include <{header}>\n")
        for turn in range(rounds + 1):
            for header, mode in jobs:
                source = f"{list(GOALS).index(header)}.cpp"
                command = [path, "-std=c++20", "-O2", f"-I{INCLUDE}", *MODES[mode], source]
                taken = seconds(command, folder)
                if turn > 0:  # the first one brings the headers into memory
                    times[header, mode].append(taken)
    rows = []
    for header, mode in jobs:
        median = statistics.median(times[header, mode])
        ratio, goal = median / statistics.median(times[BASE, mode]), GOALS[header]
        rows.append(
            {
                "header": header,
                "mode": mode,
                "milliseconds": round(median * 1e3, 1),
                "ratio_to_xsimd": round(ratio, 3),
                "goal": goal,
                "met": None if goal is None else ratio <= goal,
            }
        )
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    return {"compiler": version, "rounds": rounds, "rows": rows}


def lines(rows: list[dict[str, Any]]) -> list[Line]:
    return [
        Line(
            f"compile, {row['mode']}",
            row["header"],
            f"{row['milliseconds']:.0f} ms",
            f"{row['ratio_to_xsimd']:.2f} of xsimd's",
            verdict(f"<= {row['goal']}", row["met"]),
        )
        for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = run(arguments.rounds, arguments.compiler)
    print_table(lines(result["rows"]))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
