"""Uniform NVFP4 by other packages and by prismaquant: KL divergence, weights only and with NVFP4 inputs, and time.

    python benchmarks/peers/compare.py MODEL --calibration IDS.npy --evaluation TEXT --python llm-compressor=PYTHON
        [--python ModelOpt=PYTHON] [--python auto-round=PYTHON] [--work FOLDER] [--json FILE]

Every package rounds the same model on the same calibration windows in an environment of its own, whose interpreter is
named, for example after

    python -m venv llmc && llmc/bin/pip install torch llmcompressor
    python -m venv modelopt && modelopt/bin/pip install torch nvidia-modelopt transformers accelerate
    python -m venv autoround && autoround/bin/pip install torch auto-round

and what it decodes to is judged here. A package without an interpreter, or whose script fails, is left out with a
notice. Weights that are in the work folder already are judged again, not made again. Times are processor seconds on one
thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

import prismaquant as pq
from prismaquant.streaming.tokens import read_tokens

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "quality"))

from capture import capture  # noqa: E402 (scripts, not a package)
from divergence import Evaluation, ratio_interval  # noqa: E402
from ladder import quantize, quantized_inputs  # noqa: E402
from network import Network  # noqa: E402
from rungs import Rung, rung_called  # noqa: E402

FORMAT = "nvfp4"
#: Script of each package, and its recipes with whether they look at data.
PEERS = {
    "llm-compressor": ("run_llm_compressor.py", {"rtn": False, "mse": False, "gptq": True}),
    "ModelOpt": (
        "run_modelopt.py",
        {"rtn": False, "four-over-six": False, "mse": False, "local-hessian": True, "gptq": True},
    ),
    "auto-round": ("run_auto_round.py", {"opt-rtn": True, "tuned": True}),
}
OURS = (
    rung_called(FORMAT, "rtn"),
    rung_called(FORMAT, "four over six"),
    rung_called(FORMAT, "scale sweep"),
    Rung("fast", "fast"),
    Rung("best", "best"),
    Rung("best, with shift", "best", is_shifted=True),
)
OWN_TEXT = "best, with shift, on text that the model wrote"
#: Largest ratio to the best peer: of KL, weights only, and of what quantized weights add where inputs are in NVFP4.
GOALS = {"best": (0.66, 0.70), "best, with shift": (0.66, 0.70), OWN_TEXT: (0.75, None)}


@dataclass
class Result:
    """What one recipe made.

    Attributes
    ----------
    who, recipe
        Their names.
    uses_data
        Whether it looked at calibration windows.
    seconds
        Processor time with the gathering of statistics.
    solver_seconds
        Without it, where that can be told apart.
    kl, added
        ``[windows]``, nats per token: weights only, and with NVFP4 inputs above those alone.
    """

    who: str
    recipe: str
    uses_data: bool
    seconds: float
    solver_seconds: float | None
    kl: np.ndarray
    added: np.ndarray


class Comparison:
    """One model, its calibration windows and its evaluation text."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._model = pq.open(options.model)
        self._network = Network.load(options.model)
        self._ids = torch.from_numpy(np.load(options.calibration).astype(np.int64))
        shape = {"samples": options.windows, "seq_len": self._ids.shape[1]}
        text = read_tokens(options.evaluation, self._model, **shape).ids
        self._evaluation = Evaluation(self._network, torch.from_numpy(text))
        start = time.process_time()
        self._statistics = capture(self._network, self._ids, seed=0)
        self._capture_seconds = time.process_time() - start
        self._inputs = quantized_inputs(self._statistics.input_amax, threads=1)
        self._floor = self._evaluation.kl({}, self._inputs)
        self.floor = float(self._floor.mean())

    def of_peer(self, who: str, python: str) -> list[Result]:
        """All recipes of a package; those that fail are named and left out."""
        script, recipes = PEERS[who]
        results = []
        for recipe, uses_data in recipes.items():
            path = self._options.work / f"{who}-{recipe}.safetensors"
            report = path.with_suffix(".json")
            if not report.exists():
                arguments = [self._options.model, self._options.calibration, path, "--recipe", recipe]
                done = subprocess.run([python, HERE / script, *arguments], capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    notice(f"{who} {recipe} is left out: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
                    continue
            facts = json.loads(report.read_text())
            weights = {name.removesuffix(".weight"): tensor for name, tensor in load_file(path).items()}
            results.append(self._judge(who, recipe, uses_data, weights, facts["processor_seconds"], None))
        return results

    def of_ours(self) -> list[Result]:
        """Our presets, and the best of them on text that the model wrote."""
        return [self._solve(rung, rung.name) for rung in OURS] + [self._on_own_text()]

    def _solve(self, rung: Rung, name: str) -> Result:
        start = time.process_time()
        weights = quantize(self._network, self._ids, self._statistics, FORMAT, rung, threads=1)
        seconds = time.process_time() - start
        whole = seconds + (self._capture_seconds if rung.uses_gram else 0.0)
        return self._judge("prismaquant", name, rung.uses_gram, weights, whole, None if rung.is_shifted else seconds)

    def _on_own_text(self) -> Result:
        given = self._ids, self._statistics, self._capture_seconds
        start = time.process_time()
        self._ids = self._network.sample(*self._ids.shape, seed=0)
        self._statistics = capture(self._network, self._ids, seed=0)
        self._capture_seconds = time.process_time() - start
        try:
            return self._solve(OURS[-1], OWN_TEXT)
        finally:
            self._ids, self._statistics, self._capture_seconds = given

    def _judge(
        self,
        who: str,
        recipe: str,
        uses_data: bool,
        weights: dict[str, torch.Tensor],
        seconds: float,
        solver_seconds: float | None,
    ) -> Result:
        kl = self._evaluation.kl(weights)
        added = self._evaluation.kl(weights, self._inputs) - self._floor
        print(f"{who} {recipe}: {kl.mean() * 1e3:.3f}, {seconds:.1f} s", file=sys.stderr, flush=True)
        return Result(who, recipe, uses_data, seconds, solver_seconds, kl, added)


def notice(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def rows_of(results: list[Result]) -> list[dict[str, Any]]:
    """One row per result, with ratios to the best peer."""
    peers = [result for result in results if result.who in PEERS]
    rows = []
    for result in results:
        row: dict[str, Any] = {
            "by": result.who,
            "recipe": result.recipe,
            "uses_data": result.uses_data,
            "seconds": round(result.seconds, 2),
            "solver_seconds": None if result.solver_seconds is None else round(result.solver_seconds, 2),
        }
        goals = dict(zip(("kl", "added"), GOALS.get(result.recipe, (None, None)), strict=True))
        for part, goal in goals.items():
            values: np.ndarray = getattr(result, part)
            row[part] = float(values.mean())
            if peers:
                best = min((getattr(peer, part) for peer in peers), key=np.mean)
                row[f"{part}_ratio"], *row[f"{part}_interval"] = ratio_interval(values, best)
                row[f"{part}_goal"] = goal if result.who == "prismaquant" else None
        rows.append(row)
    return rows


def claims_of(results: list[Result]) -> list[dict[str, Any]]:
    """Goals that are ratios of two rows: what is said, the ratio, the goal."""
    found = {(result.who, result.recipe): result for result in results}
    swept, best, shifted = (found["prismaquant", name] for name in ("scale sweep", "best", "best, with shift"))
    claims = []
    free = [result for result in results if result.who in PEERS and not result.uses_data]
    if free:
        ratio = swept.kl.mean() / min(result.kl.mean() for result in free)
        claims.append(("KL of the scale sweep over that of the best peer without data", ratio, 1.0))
    if gptq := found.get(("llm-compressor", "gptq")):
        assert best.solver_seconds is not None
        what = "solver time of best, without statistics, over llm-compressor's whole GPTQ run"
        claims.append((what, best.solver_seconds / gptq.seconds, 0.2))
    if tuned := found.get(("auto-round", "tuned")):
        claims.append(("all of best with shift over auto-round's tuning", shifted.seconds / tuned.seconds, 1 / 3))
    return [{"what": what, "ratio": float(ratio), "goal": goal} for what, ratio, goal in claims]


def to_text(rows: list[dict[str, Any]], claims: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table, claims as lines below it."""
    titles = (
        "by",
        "recipe",
        "KL x 1000",
        "ratio to the best peer",
        "",
        "added to NVFP4 inputs",
        "ratio",
        "",
        "seconds",
    )
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for row in rows:
        cells = [row["by"], row["recipe"]]
        for part in ("kl", "added"):
            ratio, goal = row.get(f"{part}_ratio"), row.get(f"{part}_goal")
            interval = "" if ratio is None else " [{:.3f}, {:.3f}]".format(*row[f"{part}_interval"])
            verdict = "" if goal is None or ratio is None else _verdict(ratio, goal)
            cells += [f"{row[part] * 1e3:.3f}", "" if ratio is None else f"{ratio:.3f}{interval}", verdict]
        lines.append("| " + " | ".join([*cells, f"{row['seconds']:.1f}"]) + " |")
    return "\n".join(
        [*lines, "", *(f"{c['what']}: {c['ratio']:.3f}, {_verdict(c['ratio'], c['goal'])}" for c in claims)]
    )


def _verdict(ratio: float, goal: float) -> str:
    return f"{'met' if ratio <= goal else 'missed'} (<= {goal:.2f})"


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(1)
    pythons = dict(pair.split("=", 1) for pair in options.python)
    options.work.mkdir(parents=True, exist_ok=True)
    comparison = Comparison(options)
    results = []
    for who in PEERS:
        if who in pythons:
            results += comparison.of_peer(who, pythons[who])
        else:
            notice(f"{who} is left out: no --python {who}=PYTHON")
    results += comparison.of_ours()
    rows, claims = rows_of(results), claims_of(results)
    print(f"KL of NVFP4 inputs alone: {comparison.floor * 1e3:.3f} x 1e-3\n\n{to_text(rows, claims)}")
    if options.json:
        options.json.write_text(
            json.dumps({"floor": comparison.floor, "rows": rows, "claims": claims}, indent=1) + "\n"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a small model")
    parser.add_argument("--calibration", type=Path, required=True, help=".npy of token ids [windows, seq_len]")
    parser.add_argument("--evaluation", type=Path, required=True, help=".txt, .jsonl or .npy")
    parser.add_argument("--windows", type=int, default=64, help="evaluation windows")
    parser.add_argument(
        "--python", action="append", default=[], metavar="PACKAGE=PYTHON", help=f"of {', '.join(PEERS)}"
    )
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks/peers"), help="weights of the packages")
    parser.add_argument("--json", type=Path)
    return parser


if __name__ == "__main__":
    main()
