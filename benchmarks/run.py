"""Every benchmark of speed: builds, measures, prints one table and writes one JSON. See README.md.

python benchmarks/run.py [--rounds 7] [--json build/benchmarks/results.json] [--no-compile]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import bench_gptq_python
import bench_peers
import compile_time
from report import Line, print_table, verdict

import prismaquant as pq

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "benchmarks"
#: The environment's own cmake and ninja first.
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def build() -> Path:
    """The folder of the C++ benchmarks, compiled as the tests compile them."""
    options = [f"-DPRISMAQUANT_BUILD_{what}" for what in ("BENCHMARKS=ON", "TESTS=OFF", "EXAMPLES=OFF")]
    for command in (
        ["cmake", "-S", ROOT, "-B", BUILD, "-DCMAKE_BUILD_TYPE=Release", *options],
        ["cmake", "--build", BUILD],
    ):
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(done.stdout + done.stderr)
    return BUILD / "benchmarks"


def measured(command: list[str | Path], name: str) -> Any:
    """Runs a benchmark that writes JSON; its own table is not shown."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    path = BUILD / f"{name}.json"
    subprocess.run([*command, "--json", path], check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    return json.loads(path.read_text())


def kernel_lines(rows: list[dict[str, Any]]) -> list[Line]:
    lines = []
    for row in rows:
        is_limit, goal = row["isa"] == "limit", row.get("goal")
        lines.append(
            Line(
                f"{row['kernel']}, {row['size']}, {row['threads']} thread{'s' if row['threads'] > 1 else ''}",
                f"limit ({row['limit_kernel']})" if is_limit else row["isa"],
                f"{row['elements_per_second'] / 1e9:.2f} G/s",
                "" if is_limit else f"{row['ratio_to_limit']:.2f} of the limit",
                verdict(f">= {goal}", row["ratio_to_limit"] >= goal if goal else None),
            )
        )
    return lines


def solver_lines(rows: list[dict[str, Any]]) -> list[Line]:
    return [
        Line(
            row["what"],
            row["by"],
            f"{row['seconds']:.2f} s",
            f"{row['ratio']:.2f}",
            verdict(row["goal"], row["met"] if row["goal"] else None),
        )
        for row in rows
    ]


def machine(compiler: str) -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    found = pq.doctor()
    return {
        "processor": models[0] if models else found.system,
        "cores": found.cores,
        "isa": found.active_isa,
        "available_isas": found.available_isas,
        "compiler": compiler,
        "python": found.python,
        "prismaquant": found.version,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile, which takes minutes to start")
    parser.add_argument("--json", type=Path, default=BUILD / "results.json")
    arguments = parser.parse_args()
    rounds = ["--rounds", str(arguments.rounds)]
    here = Path(__file__).parent
    programs = build()
    kernels = measured([programs / "bench_codec", *rounds], "kernels")
    no_compile = ["--no-compile"] if arguments.no_compile else []
    peers = measured([sys.executable, here / "bench_peers.py", *rounds, *no_compile], "peers")
    compilation = measured([sys.executable, here / "compile_time.py", *rounds], "compile_time")
    loops = measured([sys.executable, here / "bench_gptq_python.py", *rounds], "gptq_python")
    has_solver = (programs / "bench_solver").exists()
    solver = measured([programs / "bench_solver", *rounds], "solver") if has_solver else []
    facts = machine(compilation["compiler"])
    lines = kernel_lines(kernels) + bench_peers.lines(peers["rows"]) + compile_time.lines(compilation["rows"])
    print_table(lines + solver_lines(solver) + bench_gptq_python.lines(loops))
    print(", ".join(f"{name} {value}" for name, value in facts.items() if name != "available_isas"))
    absent = peers["absent"] + ([] if has_solver else ["bench_solver (needs Eigen and OpenBLAS)"])
    if absent:
        print("left out:", ", ".join(absent))
    result = {"machine": facts, "kernels": kernels, "peers": peers, "compile_time": compilation}
    result |= {"solver": solver, "gptq_python": loops}
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(arguments.json)


if __name__ == "__main__":
    main()
