"""What planning costs: the knapsack, the frontier, and the way from files to a plan.

    python benchmarks/planning.py [--rounds 5] [--json FILE]

The model is a mixture of experts with 100,000 tensors in 500 shards, whose headers are real and whose weights are holes
in sparse files (about 200 GB of them, and no byte on the disk). Each line is the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from report import Line, print_table, verdict

import prismaquant as pq
from prismaquant import _core
from prismaquant.files import sensitivity as sensitivity_file
from prismaquant.files.sensitivity import Candidate, LinearSensitivity, Sensitivity, UnitSensitivity
from prismaquant.formats import get_scheme
from prismaquant.model import Model
from prismaquant.planning.candidates import unit_bytes

TENSORS, SHARDS, EXPERTS, HIDDEN, INTERMEDIATE, LAYERS = 100_000, 500, 128, 2048, 768, 500
COMMAND = """
import sys
from prismaquant.cli import main
code = main()
assert "torch" not in sys.modules
sys.exit(code)
"""
OTHERS = {
    "model.embed_tokens.weight": [4096, HIDDEN],
    "lm_head.weight": [4096, HIDDEN],
    "model.norm.weight": [HIDDEN],
}
MENU = ("NVFP4", "NVFP4A16", "FP8_DYNAMIC", "BF16")


def layers(count: int, seed: int) -> tuple[list[list[int]], list[list[float]]]:
    """Bytes and losses of ``count`` units in eight formats."""
    rng = np.random.default_rng(seed)
    quarters = np.array([9, 13, 17, 18, 21, 26, 33, 64])
    sizes = rng.integers(1, 1000, count)
    weights = np.exp(1.5 * rng.standard_normal(count)) * sizes
    relative = np.where(quarters == 64, 1e-6, np.exp2(-0.5 * quarters))
    losses = weights[:, None] * relative * np.exp(0.15 * rng.standard_normal((count, 8)))
    return (sizes[:, None] * quarters).tolist(), losses.tolist()


def timed(run: Callable[[], Any], rounds: int) -> float:
    """Median seconds."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def knapsack_lines(rounds: int) -> Iterator[Line]:
    for count, goal in ((20_000, 0.020), (100_000, 1.0)):
        bytes_, losses = layers(count, 1)
        problem = bytes_, losses, 2 * sum(map(min, bytes_))
        found = _core.allocate(*problem)
        gap = found["loss"] - found["lower_bound"]
        vertices = timed(partial(_core.frontier, *problem[:2]), rounds)
        spent = timed(partial(_core.allocate, *problem), rounds)
        yield Line(
            f"knapsack of {count:,} x 8, gap {gap:g}, from Python's lists",
            "allocate",
            f"{1000 * spent:.1f} ms",
            f"all vertices {1000 * vertices:.1f} ms",
            verdict(f"<= {1000 * goal:g} ms", spent <= goal and gap == 0),
        )


def frontier_lines(rounds: int) -> Iterator[Line]:
    bytes_, losses = layers(1000, 2)
    low, high = sum(map(min, bytes_)), sum(map(max, bytes_))
    budgets = [low + (high - low) * number // 999 for number in range(1000)]
    spent = timed(lambda: (_core.frontier(bytes_, losses), _core.sweep(bytes_, losses, budgets)), rounds)
    points = _core.sweep(bytes_, losses, budgets)
    proven = all(loss - bound <= tolerance for _, loss, bound, tolerance in points)
    monotone = all(before[1] >= after[1] for before, after in pairwise(points))
    yield Line(
        "frontier of 1,000 x 8 at 1,000 budgets",
        "sweep",
        f"{spent:.2f} s",
        f"proven: {proven}, monotone: {monotone}",
        verdict("<= 1 s", spent <= 1 and proven and monotone),
    )


def write_model(folder: Path) -> Path:
    """A Qwen3-MoE of `TENSORS` tensors: headers and holes."""
    folder.mkdir()
    shapes = {
        "model.embed_tokens.weight": [4096, HIDDEN],
        "lm_head.weight": [4096, HIDDEN],
        "model.norm.weight": [HIDDEN],
    }
    count = 0
    while len(shapes) < TENSORS - 3 * EXPERTS:
        layer = f"model.layers.{count}."
        for name in ("q", "k", "v", "o"):
            shapes[f"{layer}self_attn.{name}_proj.weight"] = [HIDDEN, HIDDEN]
        shapes |= {f"{layer}{name}.weight": [HIDDEN] for name in ("input_layernorm", "post_attention_layernorm")}
        shapes[f"{layer}mlp.gate.weight"] = [EXPERTS, HIDDEN]
        for expert in range(EXPERTS):
            at = f"{layer}mlp.experts.{expert}."
            shapes |= {f"{at}{name}_proj.weight": [INTERMEDIATE, HIDDEN] for name in ("gate", "up")}
            shapes[f"{at}down_proj.weight"] = [HIDDEN, INTERMEDIATE]
        count += 1
    names = list(shapes)
    index = {}
    for number in range(SHARDS):
        file = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        header, end = {}, 0
        for name in names[number * len(names) // SHARDS : (number + 1) * len(names) // SHARDS]:
            begin, end = end, end + 2 * int(np.prod(shapes[name]))
            header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [begin, end]}
            index[name] = file
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as shard:
            shard.write(len(text).to_bytes(8, "little") + text)
            shard.truncate(8 + len(text) + end)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    config = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_hidden_layers": count,
        "num_experts": EXPERTS,
        "num_experts_per_tok": 8,
        "hidden_size": HIDDEN,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 32768,
        "vocab_size": 4096,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_dense(folder: Path) -> Path:
    """A Llama of `LAYERS` layers with four units each: headers and holes."""
    folder.mkdir()
    header, end = {}, 0
    shapes = {
        "model.embed_tokens.weight": [4096, HIDDEN],
        "lm_head.weight": [4096, HIDDEN],
        "model.norm.weight": [HIDDEN],
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        shapes |= {f"{at}self_attn.{name}_proj.weight": [HIDDEN, HIDDEN] for name in ("q", "k", "v", "o")}
        shapes |= {f"{at}mlp.{name}_proj.weight": [4 * HIDDEN, HIDDEN] for name in ("gate", "up")}
        shapes[f"{at}mlp.down_proj.weight"] = [HIDDEN, 4 * HIDDEN]
        shapes |= {f"{at}{name}.weight": [HIDDEN] for name in ("input_layernorm", "post_attention_layernorm")}
    for name, shape in shapes.items():
        begin, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as shard:
        shard.write(len(text).to_bytes(8, "little") + text)
        shard.truncate(8 + len(text) + end)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": LAYERS,
        "hidden_size": HIDDEN,
        "num_attention_heads": 16,
        "max_position_embeddings": 32768,
        "vocab_size": 4096,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_sensitivity(model: Model, path: Path) -> Path:
    """Random prices, with sums over 32 windows, as large as those of a probe."""
    rng = np.random.default_rng(3)
    scale = {"NVFP4": 4.0, "NVFP4A16": 1.0, "FP8_DYNAMIC": 0.05, "BF16": 0.0}
    units, sums, rows = [], {}, {}
    for unit in model.units:
        weight = float(rng.exponential(1e-4))
        windows = np.outer([weight * scale[name] for name in MENU], 512 * rng.exponential(1, 32)).astype(np.float32)
        sums[f"{unit.name}/directional"] = windows
        prices = windows.astype(float).sum(1) / (32 * 512)
        linears = tuple(LinearSensitivity(x.name, x.rows, x.columns, 1.0, 1.0) for x in unit.linears)
        rows |= {x.name: np.ones(x.rows, np.float32) for x in unit.linears}
        candidates = tuple(
            Candidate(name, unit_bytes(unit, get_scheme(name)), 1.0, {"directional": float(price)})
            for name, price in zip(MENU, prices, strict=True)
        )
        units.append(UnitSensitivity(unit.name, linears, candidates, 1.0))
    sensitivity_file.write(
        path,
        Sensitivity(
            model=model.fingerprint, data="sha256:data", tokens=65536, seq_len=512, probes=1, seed=0, preset="best",
            prices=("directional",), units=tuple(units), price_data="sha256:other", price_tokens=16384, price_probes=8,
            fisher_rows=rows, price_sums=sums,
        ),
    )  # fmt: skip
    return path


def command_seconds(arguments: list[str | Path], rounds: int) -> float:
    """Median seconds of a command beyond those of the interpreter that imports nothing."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "0"}

    def run(code: str) -> float:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment), rounds)

    plan = (
        "import sys\nfrom prismaquant.cli import main\ncode = main()\nassert 'torch' not in sys.modules\nsys.exit(code)"
    )
    return run(plan) - run("pass")


def file_lines(folder: Path, rounds: int) -> Iterator[Line]:
    large = write_model(folder / "large")
    spent = command_seconds(["plan", large, "--fit", "H200", "--tensor-parallel", "2", "--context", "32k"], rounds)
    what = f"plan --fit without prices, {len(pq.open(large).tensors):,} tensors in {SHARDS} shards"
    yield Line(what, "command", f"{spent:.2f} s", "", verdict("<= 2 s", spent <= 2))
    dense = write_dense(folder / "dense")
    prices = write_sensitivity(pq.open(dense), folder / "sensitivity.safetensors")
    asked = ["--fit", f"{LAYERS * 96_000_000}", "--context", "1k", "--kv", "fp8"]
    spent = command_seconds(["plan", dense, "--sensitivity", prices, *asked], rounds)
    size = f"{prices.stat().st_size / 1e6:.0f} MB of prices"
    yield Line(
        f"plan --fit with prices of {4 * LAYERS:,} units",
        "command",
        f"{spent:.2f} s",
        size,
        verdict("<= 0.5 s", spent <= 0.5),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lines = [*knapsack_lines(options.rounds), *frontier_lines(options.rounds)]
    with tempfile.TemporaryDirectory() as folder:
        lines += file_lines(Path(folder), options.rounds)
    print_table(lines)
    if options.json:
        options.json.write_text(json.dumps([line._asdict() for line in lines], indent=1) + "\n")


if __name__ == "__main__":
    main()
