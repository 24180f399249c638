"""The quality ladder: KL of one format everywhere, weights only, for every preset of the solver.

    python benchmarks/quality/ladder.py MODEL --evaluation TEXT [--format nvfp4] [--outliers]

Every preset is stated as a ratio to round-to-nearest in the same run, with a paired bootstrap interval over windows of
text.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from divergence import Evaluation, ratio_interval
from network import Network, plant_outliers

import prismaquant as pq
from prismaquant.streaming.tokens import read_tokens


def main() -> None:
    """Measures, prints and writes what the command line asks for."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    network = Network.load(options.model)
    if options.outliers:
        plant_outliers(network)
    text = read_tokens(options.evaluation, pq.open(options.model), samples=options.windows, seq_len=options.seq_len)
    evaluation = Evaluation(network, torch.from_numpy(text.ids))
    rows: list[dict[str, object]] = []
    reference = None
    for preset in pq.list_presets():
        start = time.perf_counter()
        weights = quantize(network, options.format, preset, options.threads)
        seconds = time.perf_counter() - start
        kl = evaluation.kl(weights)
        reference = kl if reference is None else reference  # the first preset is the cheapest: round to nearest
        ratio, low, high = ratio_interval(kl, reference)
        rows.append(
            {"preset": preset, "kl": float(kl.mean()), "ratio": ratio, "interval": [low, high], "seconds": seconds}
        )
    print(to_text(rows))
    asked = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"options": asked, "presets": rows}, indent=1) + "\n")


def quantize(network: Network, format: str, preset: str, threads: int) -> dict[str, torch.Tensor]:
    """Decoded weights of all Linears; those that share an input share a global scale."""
    decoded = {}
    for group in (group for layer in network.groups for group in layer):
        scale = pq.shared_global_scale([network.weight(name) for name in group], format, preset=preset)
        for name in group:
            solution = pq.solve(network.weight(name), format, preset=preset, global_scale=scale, threads=threads)
            decoded[name] = torch.from_numpy(pq.get_codec(format).decode(solution.quantized, dtype="float32"))
    return decoded


def to_text(rows: Sequence[dict]) -> str:
    """The rows as a Markdown table."""
    lines = ["| preset | KL x 1000 | ratio | seconds |", "|---|---|---|---|"]
    for row in rows:
        low, high = row["interval"]
        interval = f"{row['ratio']:.3f} [{low:.3f}, {high:.3f}]"
        lines.append(f"| {row['preset']} | {row['kl'] * 1e3:.3f} | {interval} | {row['seconds']:.1f} |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a small model")
    parser.add_argument("--evaluation", type=Path, required=True, help=".txt, .jsonl or .npy")
    parser.add_argument("--format", choices=pq.list_formats(), default="nvfp4")
    parser.add_argument("--outliers", action="store_true", help="plant outlier channels first")
    parser.add_argument("--windows", type=int, default=64, help="evaluation windows")
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/ladder.json"))
    return parser


if __name__ == "__main__":
    main()
