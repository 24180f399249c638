"""How true the prices are: what `probe` predicts for every unit and scheme, against the KL of that unit replaced.

    python benchmarks/quality/prices.py MODEL --calibration TEXT --evaluation TEXT [--out prices.json]

Replaces one unit of the whole model at a time by the rendering that was priced, inputs quantized as its scheme says,
and measures the KL divergence on held-out text. For every price: the spread of log(price / KL) over units, the sum of
the prices over the KL of all units replaced at once, and Spearman's rank correlation.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from divergence import Evaluation
from network import Network
from scipy.stats import spearmanr

import prismaquant as pq
from prismaquant.calibration.inputs import quantize_input
from prismaquant.calibration.prices import PRICES
from prismaquant.files.sensitivity import Sensitivity, UnitSensitivity
from prismaquant.formats import get_scheme
from prismaquant.pipeline.work import render_cache
from prismaquant.rendering.cache import RenderCache
from prismaquant.rendering.input_scale import static_scale
from prismaquant.streaming.tokens import read_tokens

#: What is priced: one of each kind, and what their inputs cost.
SCHEMES = ("NVFP4A16", "NVFP4", "FP8_DYNAMIC")

Change = tuple[dict[str, torch.Tensor], dict[str, Callable[[torch.Tensor], torch.Tensor]]]


def main() -> None:
    """Measures, prints and writes what the command line asks for."""
    options = _parser().parse_args()
    model = pq.open(options.model)
    with tempfile.TemporaryDirectory() as work:
        sensitivity = pq.probe(
            model,
            options.calibration,
            schemes=SCHEMES,
            prices=tuple(PRICES),
            samples=options.samples,
            price_samples=options.price_samples,
            seq_len=options.seq_len,
            work_dir=work,
        )
        cache = render_cache(model, sensitivity.preset, sensitivity.calibration, Path(work))
        network = Network.load(options.model)
        text = read_tokens(options.evaluation, model, samples=options.windows, seq_len=options.seq_len).ids
        evaluation = Evaluation(network, torch.from_numpy(text))
        rows = []
        for scheme in SCHEMES:
            changes = {unit.name: change(cache, model, unit, scheme) for unit in sensitivity.units}
            single = {name: float(evaluation.kl(*of_unit).mean()) for name, of_unit in changes.items()}
            joint = float(evaluation.kl(*together(list(changes.values()))).mean())
            print(
                f"{scheme}: all units {joint * 1e3:.3f}, sum of single ones {sum(single.values()) * 1e3:.3f}",
                flush=True,
            )
            rows.append({"scheme": scheme, "joint_kl": joint, "unit_kl": single, "prices": priced(sensitivity, scheme)})
    table(rows)
    options.out.write_text(json.dumps(rows, indent=1) + "\n")


def change(cache: RenderCache, model: pq.Model, unit: UnitSensitivity, scheme: str) -> Change:
    """What the unit's Linears become under ``scheme``: decoded weights, and what their inputs go through."""
    facts = get_scheme(scheme)
    rendering = cache.get(next(each for each in model.units if each.name == unit.name), facts.weight_format)
    assert rendering is not None
    codec = pq.get_codec(facts.weight_format)
    weights = {name: torch.from_numpy(codec.decode(stored)) for name, stored in rendering.quantized.items()}
    if facts.activations is None:
        return weights, {}

    def served(x: torch.Tensor, activations: str) -> torch.Tensor:
        scale = static_scale(activations, unit.input_amax, unit.input_global_scale)
        return quantize_input(x.flatten(0, -2), activations, scale).view(x.shape)

    return weights, dict.fromkeys(weights, functools.partial(served, activations=facts.activations))


def together(changes: list[Change]) -> Change:
    """All of them at once."""
    weights, inputs = ({k: v for part in parts for k, v in part.items()} for parts in zip(*changes, strict=True))
    return weights, inputs


def priced(sensitivity: Sensitivity, scheme: str) -> dict[str, dict[str, float]]:
    """Price -> unit -> value."""
    return {
        price: {
            unit.name: candidate.prices[price]
            for unit in sensitivity.units
            for candidate in unit.candidates
            if candidate.scheme == scheme
        }
        for price in sensitivity.prices
    }


def table(rows: list[dict]) -> None:
    """One line for each price and scheme, and one pooled over the schemes."""
    print("| price | scheme | sd of log(price / KL) | sum of prices / joint KL | Spearman |\n|---|---|---|---|---|")
    for price in rows[0]["prices"]:
        pooled: list[tuple[float, float]] = []
        for row in rows:
            pairs = [(row["prices"][price][name], kl) for name, kl in row["unit_kl"].items()]
            pooled += pairs
            predicted, true = np.array(pairs).T
            print(
                f"| {price} | {row['scheme']} | {np.log(predicted / true).std(ddof=1):.2f} "
                f"| {predicted.sum() / row['joint_kl']:.2f} | {spearmanr(predicted, true)[0]:.3f} |"
            )
        print(f"| {price} | all | | | {spearmanr(*np.array(pooled).T)[0]:.3f} |")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--calibration", type=Path, required=True, metavar="TEXT")
    parser.add_argument("--evaluation", type=Path, required=True, metavar="TEXT", help="held-out text")
    parser.add_argument("--samples", type=int, default=128, metavar="N", help="windows to solve for")
    parser.add_argument("--price-samples", type=int, default=32, metavar="N", help="windows that set prices")
    parser.add_argument("--windows", type=int, default=32, metavar="N", help="windows of held-out text")
    parser.add_argument("--seq-len", type=int, default=256, metavar="N")
    parser.add_argument("--out", type=Path, default=Path("prices.json"))
    return parser


if __name__ == "__main__":
    main()
