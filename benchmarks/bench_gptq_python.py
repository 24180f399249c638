"""GPTQ of one layer beside the loop that Python tools run: blocks of 128 columns, a rank-1 update for every column.

    python benchmarks/bench_gptq_python.py [--rounds 5] [--rows 4096] [--columns 4096] [--json FILE]

All round a layer to NVFP4 under the same scales, in the same order, with the same damped Gram, on one thread. NumPy,
PyTorch and prismaquant (by way of SciPy) each bring a BLAS; which ones, and with which kernels, is printed. Contenders
take turns; times are medians of the processor time of the process.

Loops are stated in NumPy's products of as many multiply-adds, as bench_solver states ours (goal there: 1.15). What
prismaquant takes for the whole stage has the two measurements of the objective in it, a product of twice the size each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg.lapack as lapack
import threadpoolctl
import torch
from report import Line, print_table, verdict

import prismaquant as pq

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
BLOCK = 128
GROUP = 16
#: Ours is meant to take at most 1.15 products, and half as long as these loops.
GOAL = 2.3
MIDPOINTS = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], np.float32)
VALUES = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], np.float32)
Seconds = dict[str, float]


def nearest_numpy(x: np.ndarray) -> np.ndarray:
    return np.copysign(VALUES[np.searchsorted(MIDPOINTS, np.abs(x))], x)


def nearest_torch(x: torch.Tensor) -> torch.Tensor:
    return torch.copysign(torch.from_numpy(VALUES)[torch.bucketize(x.abs(), torch.from_numpy(MIDPOINTS))], x)


def blocks_of_128(
    weight: Any, upper: Any, scales: Any, nearest: Callable[[Any], Any], outer: Callable[..., Any]
) -> Any:
    """Values ``[rows, columns]``; ``upper`` is the upper Cholesky factor of the inverse, ``scales`` one per group."""
    w, values = weight + 0, weight + 0
    for first in range(0, w.shape[1], BLOCK):
        last = first + BLOCK
        block, u = w[:, first:last] + 0, upper[first:last, first:last]
        errors = block + 0
        for i in range(block.shape[1]):
            column, scale = block[:, i], scales[:, (first + i) // GROUP]
            value = nearest(column / scale) * scale
            error = (column - value) / u[i, i]
            block[:, i:] -= outer(error, u[i, i:])
            values[:, first + i], errors[:, i] = value, error
        w[:, last:] -= errors @ upper[first:last, last:]
    return values


class Layer:
    """A random layer, its Gram of as many inputs as prismaquant needs little damping for, and scales by amax."""

    def __init__(self, rows: int, columns: int) -> None:
        draw = np.random.default_rng(1)
        self.tokens = 2 * columns
        inputs = draw.standard_normal((self.tokens, columns), np.float32)
        inputs[:, 1:] += 0.5 * inputs[:, :-1]
        self.gram = inputs.T @ inputs
        self.weight = 0.02 * draw.standard_normal((rows, columns), np.float32)
        nearest = pq.solve(self.weight, "nvfp4", preset="rtn").quantized
        codes = torch.from_numpy(np.asarray(nearest.scales).view(np.uint8)).view(torch.float8_e4m3fn)
        self.scales = codes.float().numpy() / nearest.global_scale
        solution, _ = self.solve()
        self.damping = solution.report.stages[1].damping
        self.objective = self.objective_of(pq.get_codec("nvfp4").decode(solution.quantized, dtype="float32"))

    def solve(self) -> tuple[pq.Solution, Seconds]:
        """By prismaquant, under the scales of round-to-nearest."""
        stages = [pq.Rtn(), pq.Gptq(order="natural", scales="given")]
        solution = pq.solve(self.weight, "nvfp4", gram=self.gram, tokens=self.tokens, preset=stages, threads=1)
        return solution, {"whole": solution.report.stages[1].seconds}

    def product(self) -> Seconds:
        """As many multiply-adds as the loop has: half of ``rows * columns * columns``."""
        half = self.gram[:, : self.gram.shape[1] // 2]
        start = time.process_time()
        self.weight @ half
        return {"product": time.process_time() - start}

    def factor(self) -> np.ndarray:
        """The upper factor of the inverse of the damped Gram, as GPTQ tools get it: potrf, potri, potrf."""
        h = self.gram / self.tokens
        h[np.diag_indices_from(h)] += self.damping * np.diag(h).mean()
        lower, _ = lapack.spotrf(h, lower=1)
        inverse, _ = lapack.spotri(lower, lower=1)
        upper, failed = lapack.spotrf(np.tril(inverse).T, lower=0)
        if failed:
            raise SystemExit("the Gram has no factor")
        return np.ascontiguousarray(np.triu(upper))

    def by_blocks(self, library: Callable[[np.ndarray], Any], *functions: Callable[..., Any]) -> Seconds:
        """By the loop of Python tools, on arrays of ``library``."""
        start = time.process_time()
        upper = self.factor()
        middle = time.process_time()
        values = blocks_of_128(library(self.weight), library(upper), library(self.scales), *functions)
        end = time.process_time()
        found = self.objective_of(np.asarray(values))
        if abs(found / self.objective - 1) > 0.01:
            raise SystemExit(f"the objective of the loop is {found}, ours {self.objective}")
        return {"whole": end - start, "loop": end - middle}

    def objective_of(self, values: np.ndarray) -> float:
        d = values - self.weight
        return float(((d @ self.gram) * d).sum(dtype=np.float64))


def run(rounds: int, rows: int, columns: int) -> dict[str, Any]:
    """Rows of the table, and the libraries that multiplied."""
    torch.set_num_threads(1)
    layer = Layer(rows, columns)
    contenders: dict[str, Callable[[], Seconds]] = {
        "NumPy, a product": layer.product,
        "prismaquant": lambda: layer.solve()[1],
        "NumPy, blocks of 128": lambda: layer.by_blocks(np.asarray, nearest_numpy, np.outer),
        "PyTorch, blocks of 128": lambda: layer.by_blocks(torch.from_numpy, nearest_torch, torch.outer),
    }
    times: dict[str, list[Seconds]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, body in contenders.items():
            spent = body()
            if turn > 0:  # the first one warms up
                times[name].append(spent)

    def median(name: str, part: str) -> float:
        return statistics.median(spent[part] for spent in times[name])

    product = median("NumPy, a product", "product")
    found = [
        {"name": name, "part": part, "seconds": median(name, part), "ratio": median(name, part) / product}
        for name, mine in times.items()
        for part in mine[0]
    ]
    libraries = [
        f"{i['internal_api']} {i['version']} {i.get('architecture', '')}" for i in threadpoolctl.threadpool_info()
    ]
    return {"rows": rows, "columns": columns, "rounds": rounds, "blas": sorted(set(libraries)), "lines": found}


def lines(result: dict[str, Any]) -> list[Line]:
    what = f"GPTQ {result['rows']} x {result['columns']}"
    return [
        Line(
            what,
            row["name"] + {"loop": ", the loop", "whole": ", with the factorisation", "product": ""}[row["part"]],
            f"{row['seconds']:.2f} s",
            f"{row['ratio']:.2f} products",
            verdict(f">= {GOAL}", row["ratio"] >= GOAL) if row["part"] == "loop" else "",
        )
        for row in result["lines"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=4096)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not ONE_THREAD.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD)
    result = run(arguments.rounds, arguments.rows, arguments.columns)
    print_table(lines(result))
    print(", ".join(result["blas"]))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
