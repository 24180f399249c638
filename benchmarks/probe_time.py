"""Where the time of `probe` goes, beside the forward and backward passes of the whole model in torch.

    python benchmarks/probe_time.py MODEL --data TEXT [--samples 128] [--price-samples 32] [--rounds 3] [--json FILE]

Both run in turn on the same windows with the same number of gradients; the least of the rounds counts. torch's passes
are what gradients cost at all: one forward per window, and one backward, which forms the gradients of all weights, per
sampled residual.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from report import Line, print_table, verdict
from transformers import AutoModelForCausalLM

import prismaquant as pq
from prismaquant.calibration import layer, run
from prismaquant.calibration.unit import UnitPrices
from prismaquant.streaming.residual import Signs, residual
from prismaquant.streaming.tokens import read_tokens

#: Renderings and prices, over torch's passes.
GOAL = 1.5


class Stopwatch:
    """Seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **kwargs: Any) -> Any:
            with self.of(name):
                return function(*args, **kwargs)

        return instead

    def timed_steps(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same for a generator: what it does between two of its values."""

        def instead(*args: Any, **kwargs: Any) -> Iterator[Any]:
            steps = function(*args, **kwargs)
            try:
                while True:
                    with self.of(name):
                        try:
                            value = next(steps)
                        except StopIteration:
                            return
                    yield value
            finally:
                steps.close()

        return instead


def probe(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of one probe by what they were spent on; the rest of ``"total"`` are Grams and other statistics."""
    watch = Stopwatch()
    settings = {name: getattr(options, name) for name in ("samples", "price_samples", "seq_len")}
    with (
        mock.patch.object(run, "walk", watch.timed_steps("walk", run.walk)),
        mock.patch.object(layer, "_render", watch.timed("render", layer._render)),
        mock.patch.object(UnitPrices, "add", watch.timed("price", UnitPrices.add)),
        watch.of("total"),
    ):
        pq.probe(options.model, options.data, price_probes=options.price_probes, **settings)
    return watch.seconds


def passes(options: argparse.Namespace, windows: np.ndarray) -> float:
    """Seconds of torch's forward and backward passes on as many windows and residuals."""
    model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32, local_files_only=True)
    model.eval()
    parts = ((0, options.samples, 1, 8), (options.samples, options.price_samples, options.price_probes, 1))
    start = time.perf_counter()
    for first, count, probes, batch in parts:
        for begin in range(first, first + count, batch):
            ids = torch.from_numpy(windows[begin : min(begin + batch, first + count)])
            logits = model(input_ids=ids, use_cache=False).logits
            for number in range(probes):
                signs = Signs(0, begin, number).draw(ids.numel(), logits.shape[-1])
                gradient = residual(logits.detach().flatten(0, 1), signs).view(logits.shape)
                model.zero_grad(set_to_none=True)
                logits.backward(gradient, retain_graph=number + 1 < probes)
    return time.perf_counter() - start


def lines(best: dict[str, float]) -> list[Line]:
    """Rows for `print_table`."""
    torch_seconds = best["torch"]

    def row(what: str, seconds: float, goal: str = "", met: bool | None = None) -> Line:
        return Line(what, "", f"{seconds:.1f} s", f"{seconds / torch_seconds:.2f}", verdict(goal, met))

    work = best["render"] + best["price"]
    statistics = best["total"] - best["walk"] - work
    return [
        row("torch: forward and backward", torch_seconds),
        row("probe: walk", best["walk"]),
        row("probe: Grams and other statistics", statistics),
        row("probe: rendering", best["render"]),
        row("probe: pricing", best["price"]),
        row("probe: rendering + pricing", work, f"<= {GOAL}", work <= GOAL * torch_seconds),
        row("probe: all", best["total"]),
    ]


def main() -> None:
    """Measures, prints and writes what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--data", type=Path, required=True, metavar="TEXT")
    parser.add_argument("--samples", type=int, default=128, metavar="N")
    parser.add_argument("--price-samples", type=int, default=32, metavar="N")
    parser.add_argument("--seq-len", type=int, default=256, metavar="N")
    parser.add_argument("--price-probes", type=int, default=8, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    options = parser.parse_args()
    count = options.samples + options.price_samples
    windows = read_tokens(options.data, pq.open(options.model), samples=count, seq_len=options.seq_len).ids
    best: dict[str, float] = {}
    for _ in range(options.rounds):
        of_probe, of_torch = probe(options), passes(options, windows)
        best = {
            **(of_probe if not best or of_probe["total"] < best["total"] else best),
            "torch": min(of_torch, best.get("torch", of_torch)),
        }
    print_table(lines(best))
    if options.json:
        options.json.write_text(json.dumps(best, indent=1) + "\n")


if __name__ == "__main__":
    main()
