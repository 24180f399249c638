"""Writes folders of several architectures and schemes, and has an engine's own code say what it makes of them.

Run by ``tests/engines.sh``: takes the interpreter of the engine's environment, and a name for the table.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import prismaquant as pq
from prismaquant.files.plan import Plan
from prismaquant.formats import BF16, list_schemes
from prismaquant.model import Model
from support.plans import sensitivity_of, spread
from support.tiny_models import ARCHITECTURES, MULTIMODAL, build

HERE = Path(__file__).resolve().parent
BUNDLED = HERE.parents[1] / "examples" / "models" / "tiny-llama"

#: Scheme -> what vLLM 0.33 serves it by. It makes no difference between MX formats with and without quantized
#: activations, which is a fault of its own (``python/prismaquant/facts/engines.toml``).
CLASSES = {
    "NVFP4A16": "CompressedTensorsW4A4Fp4 (16-bit activations)",
    "NVFP4": "CompressedTensorsW4A4Fp4",
    "MXFP4A16": "CompressedTensorsW4A4Mxfp4",
    "MXFP4": "CompressedTensorsW4A4Mxfp4",
    "W4A16": "CompressedTensorsWNA16",
    "MXFP8A16": "CompressedTensorsW8A8Mxfp8",
    "MXFP8": "CompressedTensorsW8A8Mxfp8",
    "FP8A16": "CompressedTensorsW8A16Fp8",
    "FP8_DYNAMIC": "CompressedTensorsW8A8Fp8",
    "FP8_STATIC": "CompressedTensorsW8A8Fp8",
    "FP8_BLOCK": "CompressedTensorsW8A8Fp8",
    "W8A8": "CompressedTensorsW8A8Int8",
    BF16: None,
}


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def engine_name(source: Model, name: str) -> str:
    """What vLLM calls the module: it nests the language models of those that also see in one way."""
    layers = re.escape(source.architecture.layers)
    return re.sub(rf"^{layers}[.]", "language_model.model.layers.", name) if source.outside else name


def judge(python: str, source: Model, plan: Plan, folder: Path) -> tuple[int, list[str]]:
    """Number of layers that are served as they should be, and what is wrong with the others."""
    pq.export(source, plan, folder, sensitivity=sensitivity_of(source, 8.0), force=True)
    asked = zip(source.units, plan.units, strict=True)
    # Banks of experts have methods instead of schemes, which only their kernels' makers choose.
    expected = {engine_name(source, unit.name): CLASSES[planned.scheme] for unit, planned in asked if not unit.experts}
    expected |= {"language_model.lm_head" if source.outside else "lm_head": None}
    expected |= {f"{module}.blocks.0.attn.qkv": None for module in source.outside}
    wanted = folder.with_suffix(".json")
    wanted.write_text(json.dumps(expected))
    ran = subprocess.run(
        [python, HERE / "vllm_schemes.py", folder, wanted], capture_output=True, text=True, check=False
    )
    try:
        found = json.loads(ran.stdout)
    except ValueError:
        return 0, [(ran.stderr.strip().splitlines() or ["said nothing"])[-1]]
    wrong = [f"{name}: {found.get(name)}, not {kind}" for name, kind in expected.items() if found.get(name) != kind]
    return len(expected) - len(wrong), wrong


def main(python: str, engine: str) -> int:
    failures = []
    say(f"| folder | schemes | layers that {engine} serves as planned |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        bundled = pq.open(BUNDLED)
        cases = [(f"tiny-llama, {scheme}", bundled, [scheme]) for scheme in list_schemes() if scheme != BF16]
        cases += [("tiny-llama, mixed", bundled, list(list_schemes()))]
        cases += [
            (f"{kind}, mixed", pq.open(build(kind, work / kind)), list(list_schemes()))
            for kind in (*ARCHITECTURES, *MULTIMODAL)
        ]
        for title, source, menu in cases:
            plan = spread(source, menu)
            right, wrong = judge(python, source, plan, work / "out")
            failures += wrong
            used = ", ".join(sorted({unit.scheme for unit in plan.units}))
            say(f"| {title} | {used} | {right} of {right + len(wrong)} |")
    sys.stderr.writelines(f"{failure}\n" for failure in failures)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
