"""How good plans are: the joint KL of the plan by each price, over that of the plan by measured KL of single units.

    python benchmarks/quality/allocation.py MODEL --calibration TEXT --evaluation TEXT [--bpw 4.75,5,5.5,6]

Every plan is the exact knapsack of the same options, and every weight the rendering that was priced, so that only the
prices differ. Beside those of `probe` there are the scores by which two other tools choose, on as many windows of the
same text: ModelOpt's sum of squared products of output gradient and output error, and auto-round's sum of absolute
products of gradients and changes of weights and inputs, taken at the quantized model; both of the loss on the text.
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
from divergence import Evaluation, _replaced
from network import Network
from prices import SCHEMES, Change, change, priced, together

import prismaquant as pq
from prismaquant.calibration.prices import PRICES
from prismaquant.files.sensitivity import Sensitivity
from prismaquant.formats import BF16
from prismaquant.pipeline.work import render_cache
from prismaquant.streaming.tokens import read_tokens

MENUS = {
    "inputs left alone": ("NVFP4A16", "FP8_DYNAMIC", BF16),
    "native inputs": ("NVFP4", "FP8_DYNAMIC", BF16),
}
ORACLE = "measured"
_BATCH = 4  # windows

#: Unit -> scheme -> score.
Scores = dict[str, dict[str, float]]


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
        changes = {
            scheme: {unit.name: change(cache, model, unit, scheme) for unit in sensitivity.units} for scheme in SCHEMES
        }
        held_out = read_tokens(options.evaluation, model, samples=options.windows, seq_len=options.seq_len).ids
        evaluation = Evaluation(network, torch.from_numpy(held_out))
        scores = {ORACLE: _measured(evaluation, changes)}
        scores |= {price: _transposed(sensitivity, price) for price in sensitivity.prices}
        windows = options.samples + options.price_samples
        text = read_tokens(options.calibration, model, samples=windows, seq_len=options.seq_len).ids
        ids = torch.from_numpy(text[options.samples :])
        scores["ModelOpt's"] = output_products(network, ids, sensitivity, changes)
        scores["auto-round's"] = weight_products(network, ids, sensitivity, changes)
        rows = plans(evaluation, sensitivity, changes, scores, options.bpw)
    table(rows, options.bpw)
    options.out.write_text(json.dumps(rows, indent=1) + "\n")


def _measured(evaluation: Evaluation, changes: dict[str, dict[str, Change]]) -> Scores:
    found: Scores = {}
    for scheme, units in changes.items():
        for name, of_unit in units.items():
            found.setdefault(name, {})[scheme] = float(evaluation.kl(*of_unit).mean())
        print(f"{scheme}: every unit measured", flush=True)
    return found


def _transposed(sensitivity: Sensitivity, price: str) -> Scores:
    by_scheme = {scheme: priced(sensitivity, scheme)[price] for scheme in SCHEMES}
    return {unit.name: {scheme: by_scheme[scheme][unit.name] for scheme in SCHEMES} for unit in sensitivity.units}


def _text_loss(network: Network, ids: torch.Tensor) -> torch.Tensor:
    """Sum over tokens of the cross entropy of the next one."""
    logits = network.logits(ids)[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")


def output_products(
    network: Network, ids: torch.Tensor, sensitivity: Sensitivity, changes: dict[str, dict[str, Change]]
) -> Scores:
    """Sum over tokens and rows of (output gradient x output error)^2, gradients of the source model."""
    names = [linear.name for unit in sensitivity.units for linear in unit.linears]
    found: Scores = {unit.name: dict.fromkeys(SCHEMES, 0.0) for unit in sensitivity.units}
    for part in ids.split(_BATCH):
        inputs: dict[str, torch.Tensor] = {}
        outputs: dict[str, torch.Tensor] = {}

        def keep(name: str, module: torch.nn.Module, args: tuple[torch.Tensor], out: torch.Tensor) -> None:
            inputs[name], outputs[name] = args[0].detach(), out  # noqa: B023 (removed before the next batch)
            out.retain_grad()

        handles = [
            network.model.get_submodule(name).register_forward_hook(functools.partial(keep, name)) for name in names
        ]
        _text_loss(network, part).backward()
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            for unit in sensitivity.units:
                for scheme in SCHEMES:
                    weights, served = changes[scheme][unit.name]
                    for linear in unit.linears:
                        name, x = linear.name, inputs[linear.name]
                        quantized = served[name](x) if name in served else x
                        error = quantized @ weights[name].T - x @ network.weight(name).T
                        found[unit.name][scheme] += float(((outputs[name].grad * error) ** 2).sum())
        network.model.zero_grad()
    return found


def weight_products(
    network: Network, ids: torch.Tensor, sensitivity: Sensitivity, changes: dict[str, dict[str, Change]]
) -> Scores:
    """Sum of |gradient x change| of weights and of inputs, gradients of the quantized model."""
    found: Scores = {unit.name: {} for unit in sensitivity.units}
    source = {name: network.weight(name).clone() for name in network.names()}
    for scheme, units in changes.items():
        weights, served = together(list(units.values()))
        for unit in sensitivity.units:
            found[unit.name][scheme] = 0.0
        unit_of = {linear.name: unit.name for unit in sensitivity.units for linear in unit.linears}
        with _replaced(network, weights):
            for part in ids.split(_BATCH):
                kept: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

                def serve(
                    name: str, change: Callable[[torch.Tensor], torch.Tensor], module: torch.nn.Module, args: tuple
                ) -> tuple[torch.Tensor]:
                    with torch.no_grad():
                        moved = change(args[0].detach()) - args[0]
                    through = args[0] + moved  # the gradient passes the rounding
                    through.retain_grad()
                    kept[name] = through, moved  # noqa: B023 (removed before the next batch)
                    return (through,)

                handles = [
                    network.model.get_submodule(name).register_forward_pre_hook(functools.partial(serve, name, change))
                    for name, change in served.items()
                ]
                _text_loss(network, part).backward()
                for handle in handles:
                    handle.remove()
                for name, of_unit in unit_of.items():
                    gradient = network.model.get_submodule(name).weight.grad
                    found[of_unit][scheme] += float((gradient * (weights[name] - source[name])).abs().sum())
                    if name in kept:
                        through, moved = kept[name]
                        found[of_unit][scheme] += float((through.grad * moved).abs().sum())
                network.model.zero_grad()
    return found


def plans(
    evaluation: Evaluation,
    sensitivity: Sensitivity,
    changes: dict[str, dict[str, Change]],
    scores: dict[str, Scores],
    budgets: list[float],
) -> list[dict]:
    """Joint KL of the plan by every score, menu and budget."""
    rows = []
    parameters = sum(linear.rows * linear.columns for unit in sensitivity.units for linear in unit.linears)
    for menu, schemes in MENUS.items():
        for bpw in budgets:
            known: dict[tuple[str, ...], float] = {}
            for score, values in scores.items():
                items, names = [], []
                for unit in sensitivity.units:
                    sizes = {candidate.scheme: candidate.bytes for candidate in unit.candidates}
                    sizes[BF16] = 2 * sum(linear.rows * linear.columns for linear in unit.linears)
                    priced_schemes = {**values[unit.name], BF16: 0.0}
                    items.append([(sizes[scheme], priced_schemes[scheme]) for scheme in schemes])
                    names.append(unit.name)
                found = pq.allocate(items, int(bpw * parameters / 8))
                chosen = tuple(schemes[index] for index in found.choice)
                if chosen not in known:
                    parts = [changes[s][n] for n, s in zip(names, chosen, strict=True) if s != BF16]
                    known[chosen] = float(evaluation.kl(*together(parts)).mean())
                rows.append({"menu": menu, "bpw": bpw, "score": score, "kl": known[chosen], "schemes": chosen})
    return rows


def table(rows: list[dict], budgets: list[float]) -> None:
    """One line for each score and menu: KL over that of the plan by measured KL."""
    print(f"| menu | plan by | {' | '.join(f'{bpw:g} bits' for bpw in budgets)} | geometric mean |")
    print("|---" * (len(budgets) + 3) + "|")
    for menu in dict.fromkeys(row["menu"] for row in rows):
        kl = {(row["score"], row["bpw"]): row["kl"] for row in rows if row["menu"] == menu}
        for score in dict.fromkeys(row["score"] for row in rows):
            ratios = [kl[score, bpw] / kl[ORACLE, bpw] for bpw in budgets]
            shown = [
                f"{1e3 * kl[score, bpw]:.2f}" if score == ORACLE else f"{r:.3f}"
                for bpw, r in zip(budgets, ratios, strict=True)
            ]
            print(f"| {menu} | {score} | {' | '.join(shown)} | {np.exp(np.log(ratios).mean()):.3f} |")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--calibration", type=Path, required=True, metavar="TEXT")
    parser.add_argument("--evaluation", type=Path, required=True, metavar="TEXT", help="held-out text")
    parser.add_argument("--bpw", type=lambda text: [float(part) for part in text.split(",")], default=[4.75, 5, 5.5, 6])
    parser.add_argument("--samples", type=int, default=96, metavar="N", help="windows to solve for")
    parser.add_argument("--price-samples", type=int, default=32, metavar="N", help="windows that set prices")
    parser.add_argument("--windows", type=int, default=32, metavar="N", help="windows of held-out text")
    parser.add_argument("--seq-len", type=int, default=256, metavar="N")
    parser.add_argument("--out", type=Path, default=Path("allocation.json"))
    return parser


if __name__ == "__main__":
    main()
