"""What bfloat16 products (`prismaquant.streaming.products`) save of the walk, and what they change in the prices.

    python benchmarks/products.py MODEL --data TEXT [--hidden 2048] [--layers 2] [--rounds 3] [--json FILE]

The walk is of a random Llama, in float32 and with such products in turn; the least of the rounds counts. The prices are
those of MODEL, a trained one whose Linears may be small: there all of them are multiplied in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from memory import VOCABULARY, Shape
from report import Line, print_table

import prismaquant as pq
from prismaquant.files.sensitivity import Sensitivity
from prismaquant.model import Model, open_model
from prismaquant.streaming import Windows, products, walk

MENU = ("NVFP4", "NVFP4A16", "FP8_DYNAMIC", "FP8A16", "BF16")
#: Elements of a weight from which on products are in bfloat16.
FLOAT32, ALWAYS = 1 << 60, 0


def seconds_of_walk(model: Model, least: int) -> float:
    """Of 12 windows of 512 tokens with one gradient, and 4 with eight."""
    ids = np.random.default_rng(0).integers(2, VOCABULARY, size=(16, 512))
    start = time.perf_counter()
    with mock.patch.object(products, "_LARGE", least):
        for _ in walk(model, [Windows(ids[:12]), Windows(ids[12:], 8)]):
            pass
    return time.perf_counter() - start


def prices(model: Path, data: Path, least: int) -> Sensitivity:
    with mock.patch.object(products, "_LARGE", least):
        return pq.probe(model, data, schemes=MENU, samples=64, price_samples=32, seq_len=256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not products.has_bf16(torch.device("cpu")):
        raise SystemExit("this processor has no instructions for bfloat16: all products are in float32")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        Shape(arguments.layers, arguments.hidden, arguments.hidden * 11 // 4).write(path)
        model = open_model(path)
        rounds = [[seconds_of_walk(model, least) for least in (FLOAT32, ALWAYS)] for _ in range(arguments.rounds)]
    exact, rounded = map(min, zip(*rounds, strict=True))
    one, other = (prices(arguments.model, arguments.data, least) for least in (FLOAT32, ALWAYS))
    pairs = np.array(
        [
            (before.prices["directional"], after.prices["directional"])
            for a, b in zip(one.units, other.units, strict=True)
            for before, after in zip(a.candidates, b.candidates, strict=True)
            if before.prices["directional"] > 0
        ]
    )
    ratios = pairs[:, 1] / pairs[:, 0]
    spread = float(np.log(ratios).std())
    print_table(
        [
            Line("walk", "float32", f"{exact:.1f} s"),
            Line("walk", "bfloat16 products", f"{rounded:.1f} s", f"{rounded / exact:.2f} of float32"),
            Line("prices", "sum", "", f"{pairs[:, 1].sum() / pairs[:, 0].sum():.4f} of float32"),
            Line(
                "prices", f"{len(pairs)} of them", "", f"{ratios.min():.3f} to {ratios.max():.3f}, log sd {spread:.3f}"
            ),
        ]
    )
    if arguments.json:
        found = {"float32": exact, "bfloat16": rounded, "ratios": ratios.tolist()}
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
