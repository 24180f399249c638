"""The quality ladder: KL of one format everywhere, weights only, for every rung from round-to-nearest to `best`.

    python benchmarks/quality/ladder.py MODEL --evaluation TEXT [--calibration TEXT] [--format nvfp4] [--outliers]
        [--activations]

Without calibration text the model writes its own.

Every rung is stated as a ratio to its format's reference in the same run (NVFP4: GPTQ with static MSE scales in
activation order), with a paired bootstrap interval over windows of text; values are means over calibration seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from capture import Grams, Statistics, capture, walk_shifted
from divergence import Evaluation, ratio_interval
from network import Network, plant_outliers
from rungs import LADDERS, Rung

import prismaquant as pq
from prismaquant.streaming.tokens import read_tokens


def main() -> None:
    """Measures, prints and writes what the command line asks for."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    network = Network.load(options.model)
    # What `read_tokens` looks at; `pq.open` would refuse architectures that cannot be exported.
    model = SimpleNamespace(path=options.model, text_config=network.model.config.to_dict())
    if options.outliers:
        plant_outliers(network)
    length = options.seq_len
    text = read_tokens(options.evaluation, model, samples=options.windows, seq_len=length).ids
    evaluation = Evaluation(network, torch.from_numpy(text))
    floor: list[np.ndarray] = []
    rungs = [rung for rung in LADDERS[options.format] if not options.only or rung.name in options.only]
    if network.experts:  # behind a quantized prefix the router sends experts other tokens, which no cross-Gram pairs
        rungs = [rung for rung in rungs if not rung.is_shifted]
    kl: dict[str, list[np.ndarray]] = {rung.name: [] for rung in rungs}
    excess: dict[str, list[np.ndarray]] = {rung.name: [] for rung in rungs}
    seconds: dict[str, list[float]] = {rung.name: [] for rung in rungs}
    for seed in options.seeds:
        ids = _calibration(options, model, network, seed)
        start = time.perf_counter()
        statistics = capture(network, ids, seed)
        print(f"seed {seed}  statistics in {time.perf_counter() - start:.1f} s", flush=True)
        inputs = quantized_inputs(statistics.input_amax, options.threads) if options.activations else {}
        if inputs:
            floor.append(evaluation.kl({}, inputs))
        for rung in rungs:
            start = time.perf_counter()
            weights = quantize(network, ids, statistics, options.format, rung, options.threads)
            seconds[rung.name].append(time.perf_counter() - start)
            kl[rung.name].append(evaluation.kl(weights))
            value = kl[rung.name][-1].mean() * 1e3
            print(f"seed {seed}  {rung.name:44} {value:8.4f}  {seconds[rung.name][-1]:6.1f} s", flush=True)
            if inputs:
                excess[rung.name].append(evaluation.kl(weights, inputs) - floor[-1])
    rows = table(rungs, kl, seconds)
    print(to_text(rows))
    added = table([replace(rung, goal=None) for rung in rungs], excess, seconds) if floor else []
    if floor:
        print(f"\nInputs in NVFP4 alone: {np.mean(floor) * 1e3:.3f}. What quantized weights add to it:\n")
        print(to_text(added))
    document = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"options": document, "rungs": rows, "with_activations": added}, indent=1) + "\n")


def quantize(
    network: Network, ids: torch.Tensor, statistics: Statistics, format: str, rung: Rung, threads: int
) -> dict[str, torch.Tensor]:
    """Decoded weights of all Linears by one rung."""
    experts = set(network.experts)

    def solve(group: list[str], grams: Grams | None = None) -> dict[str, torch.Tensor]:
        weights = {name: network.weight(name) for name in group}
        scale = pq.shared_global_scale(list(weights.values()), format, preset=rung.stages)
        decoded = {}
        for name, weight in weights.items():
            given = {}
            if rung.uses_gram:
                tokens = statistics.tokens[name]
                given = {"gram": statistics.gram[name] if grams is None else grams.gram, "tokens": tokens}
                if name in experts:
                    given["pooled_gram"], given["pooled_tokens"] = statistics.pooled(name)
            if rung.uses_output_gram and tokens != 0:
                given |= {"output_gram": statistics.output_gram[name], "output_tokens": tokens}
            if grams is not None:
                given |= {"cross_gram": grams.cross_gram}
            solution = pq.solve(weight, format, preset=rung.stages, global_scale=scale, threads=threads, **given)
            decoded[name] = torch.from_numpy(pq.get_codec(format).decode(solution.quantized, dtype="float32"))
        return decoded

    if rung.is_shifted:
        return walk_shifted(network, ids, solve)
    groups = [group for layer in network.groups for group in layer]
    return {name: weight for group in groups for name, weight in solve(group).items()}


def _calibration(options: argparse.Namespace, model: Any, network: Network, seed: int) -> torch.Tensor:
    if options.calibration is None:
        return network.sample(options.samples, options.seq_len, seed)
    read = read_tokens(options.calibration, model, samples=options.samples, seq_len=options.seq_len, seed=seed)
    return torch.from_numpy(read.ids)


def quantized_inputs(amax: dict[str, float], threads: int) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """NVFP4 as engines quantize inputs: block scales by amax, one global scale for each Linear from calibration."""
    codec = pq.get_codec("nvfp4")

    def change(global_scale: float) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: codec.roundtrip(x, scale_rule="amax", global_scale=global_scale, threads=threads)

    return {name: change(6 * 448 / value) for name, value in amax.items()}


def table(
    rungs: Sequence[Rung], kl: dict[str, list[np.ndarray]], seconds: dict[str, list[float]]
) -> list[dict[str, object]]:
    """One row per rung."""
    means = {name: np.mean(values, axis=0) for name, values in kl.items()}
    reference = next((rung.name for rung in rungs if rung.is_reference), rungs[0].name)
    rows = []
    for rung in rungs:
        ratio, low, high = ratio_interval(means[rung.name], means[reference])
        rows.append(
            {
                "rung": rung.name,
                "kl": float(means[rung.name].mean()),
                "kl_of_seeds": [float(values.mean()) for values in kl[rung.name]],
                "ratio": ratio,
                "interval": [low, high],
                "goal": rung.goal,
                "seconds": float(np.median(seconds[rung.name])),
            }
        )
    return rows


def to_text(rows: Sequence[dict]) -> str:
    """The rows as a Markdown table."""
    lines = ["| rung | KL x 1000 | ratio | goal | | seconds |", "|---|---|---|---|---|---|"]
    for row in rows:
        low, high = row["interval"]
        goal, verdict = row["goal"], ""
        if goal is not None:
            verdict = "met" if row["ratio"] <= goal else "missed"
        shown = "" if goal is None else f"{goal:.3f}"
        lines.append(
            f"| {row['rung']} | {row['kl'] * 1e3:.3f} | {row['ratio']:.3f} [{low:.3f}, {high:.3f}] | {shown} "
            f"| {verdict} | {row['seconds']:.1f} |"
        )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a small model")
    parser.add_argument("--calibration", type=Path, help=".txt, .jsonl or .npy; else text that the model writes")
    parser.add_argument("--evaluation", type=Path, required=True, help=".txt, .jsonl or .npy")
    parser.add_argument("--format", choices=sorted(LADDERS), default="nvfp4")
    parser.add_argument("--outliers", action="store_true", help="plant outlier channels first")
    parser.add_argument("--activations", action="store_true", help="also with the inputs of Linears in NVFP4")
    parser.add_argument("--only", action="append", help="name of a rung; may be repeated")
    parser.add_argument("--samples", type=int, default=128, help="calibration windows")
    parser.add_argument("--windows", type=int, default=64, help="evaluation windows")
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/ladder.json"))
    return parser


if __name__ == "__main__":
    main()
