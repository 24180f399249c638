"""Writes folders of several architectures and schemes, and has an engine's own code choose schemes and load weights.

Run by ``tests/engines.sh``: takes the interpreter of the engine's environment, a name for the table, and, if only some
folders are to be judged, an expression for their titles.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

import prismaquant as pq
from prismaquant.facts import list_faults
from prismaquant.files.plan import Plan
from prismaquant.files.sensitivity import CacheRange
from prismaquant.formats import BF16, list_schemes
from prismaquant.model import Model
from prismaquant.model.kept import NO_LAYER
from support.plans import fits, sensitivity_of, spread
from support.tiny_models import ARCHITECTURES, MIXTURES, MULTIMODAL, build

HERE = Path(__file__).resolve().parent
BUNDLED = HERE.parents[1] / "examples" / "models" / "tiny-llama"

#: Scheme -> what releases of vLLM serve it by. 0.33 makes no difference between MX formats with and without quantized
#: activations, which is a fault of its own (``python/prismaquant/facts/engines.toml``).
CLASSES: dict[str, tuple[str | None, ...]] = {
    "NVFP4A16": ("CompressedTensorsW4A4Fp4 (16-bit activations)", "CompressedTensorsW4A16Fp4"),
    "NVFP4": ("CompressedTensorsW4A4Fp4",),
    "MXFP4A16": ("CompressedTensorsW4A4Mxfp4", "CompressedTensorsW4A16Mxfp4"),
    "MXFP4": ("CompressedTensorsW4A4Mxfp4",),
    "W4A16": ("CompressedTensorsWNA16",),
    "MXFP8A16": ("CompressedTensorsW8A8Mxfp8",),
    "MXFP8": ("CompressedTensorsW8A8Mxfp8",),
    "FP8A16": ("CompressedTensorsW8A16Fp8",),
    "FP8_DYNAMIC": ("CompressedTensorsW8A8Fp8",),
    "FP8_STATIC": ("CompressedTensorsW8A8Fp8",),
    "FP8_BLOCK": ("CompressedTensorsW8A8Fp8",),
    "W8A8": ("CompressedTensorsW8A8Int8",),
    BF16: (None,),
}

#: Engine and folder -> what goes wrong without a fault of the folder: a loader that leaves KV scales out, models that
#: the release has only with a tower, a field of newer configurations.
KNOWN = {
    ("vLLM 0.22.1", "gpt_oss, mixed"): r"[.]attn[.][kv]_scale: ",
    ("vLLM 0.22.1", "mistral3, mixed"): "does not support non-default RoPE",
    ("vLLM 0.22.1", "qwen3_5_text, mixed"): "has no attribute 'vision_config'",
    ("vLLM 0.22.1", "qwen3_5_moe_text, mixed"): "has no attribute 'vision_config'",
}

#: What vLLM refuses in a bank.
NOT_FOR_EXPERTS = {scheme for fault in list_faults() if fault.refuses and fault.experts for scheme in fault.schemes}


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def engine_name(source: Model, name: str) -> str:
    """What vLLM calls the module: it nests the language models of those that also see in one way."""
    layers = re.escape(source.architecture.layers)
    if "vision_config" in source.config:
        name = re.sub(rf"^{layers}[.]", "language_model.model.layers.", name).removeprefix("model.")
        name = "language_model.lm_head" if name == "lm_head" else name
    return name.replace(".self_attn.", ".attn.") if source.architecture.model_type == "gpt_oss" else name


def caches_of(source: Model) -> tuple[CacheRange, ...]:
    """Ranges of keys and values as a probe might have seen them, another one for every layer."""
    names = {
        linear.name.removesuffix(".k_proj"): unit.layer
        for unit in source.units
        for linear in unit.linears
        if unit.layer != NO_LAYER and linear.name.endswith(".k_proj")
    }
    return tuple(CacheRange(name, layer, 3.0 + layer, 5.0 + layer) for name, layer in names.items())


def ask(python: str, script: str, folder: Path, question: object) -> dict[str, Any] | str:
    """What ``script`` prints when it is run in the engine's environment, or what went wrong."""
    file = folder.with_suffix(".json")
    file.write_text(json.dumps(question))
    command = [python, HERE / script, folder, file]
    environment = os.environ | {"PYTHONPATH": str(HERE / "site")}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    try:
        found: dict[str, Any] = json.loads(ran.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return (ran.stderr.strip().splitlines() or ["said nothing"])[-1]
    return found


def judge_schemes(python: str, source: Model, plan: Plan, folder: Path) -> tuple[int, list[str]]:
    """Number of layers that are served as they should be, and what is wrong with the others."""
    asked = zip(source.units, plan.units, strict=True)
    # Banks of experts have methods instead of schemes, which only their kernels' makers choose.
    expected = {engine_name(source, unit.name): CLASSES[planned.scheme] for unit, planned in asked if not unit.experts}
    expected = {engine_name(source, "lm_head"): (None,)} | expected
    expected |= {f"{module}.blocks.0.attn.qkv": (None,) for module in source.outside if "." not in module}
    found = ask(python, "vllm_schemes.py", folder, list(expected))
    if isinstance(found, str):
        return 0, [found]
    wrong = [f"{name}: {found[name]}, not {kinds[0]}" for name, kinds in expected.items() if found[name] not in kinds]
    return len(expected) - len(wrong), wrong


def judge_weights(python: str, source: Model, folder: Path) -> tuple[int, list[str]]:
    """Number of parameters that hold what is stored, and what is wrong with the others."""
    layers = {engine_name(source, unit.name): [linear.name for linear in unit.linears] for unit in source.units}
    layers |= {engine_name(source, f"{seen.name}.attn"): [seen.name] for seen in caches_of(source)}
    found = ask(python, "vllm_weights.py", folder, layers)
    return (0, [found]) if isinstance(found, str) else (found["right"], found["wrong"])


def as_published(folder: Path) -> Path:
    """``folder`` with the names that published Gemma 3 models have; transformers writes shorter ones."""
    if json.loads((folder / "config.json").read_text())["model_type"] == "gemma3":
        file = folder / "model.safetensors"
        tower = "vision_tower."
        tensors = {name.replace(tower, f"{tower}vision_model."): tensor for name, tensor in load_file(file).items()}
        save_file(tensors, file, {"format": "pt"})
    return folder


def cases(work: Path) -> Iterator[tuple[str, Model, list[str]]]:
    """Title, model with all that is to be quantized as units, and menu."""
    bundled = pq.open(BUNDLED)
    every = list(list_schemes())
    for scheme in every[:-1]:
        yield f"tiny-llama, {scheme}", bundled, [scheme]
    yield "tiny-llama, mixed", bundled, every
    for kind in (*ARCHITECTURES, *MULTIMODAL):
        model = pq.open(as_published(build(kind, work / kind)))
        yield f"{kind}, mixed", model, every
        if model.kept_units:
            yield f"{kind}, all pinned", model.with_units(model.kept_units), every
    mixture = pq.open(build("qwen3_moe", work / "qwen3_moe"))
    for scheme in every[:-1]:
        if scheme not in NOT_FOR_EXPERTS and all(fits(scheme, unit) for unit in mixture.units):
            yield f"qwen3_moe, {scheme}", mixture, [scheme]
    for kind in MIXTURES:
        yield f"{kind}, mixed", pq.open(build(kind, work / kind)), [x for x in every if x not in NOT_FOR_EXPERTS]


def main(python: str, engine: str, only: str = "") -> int:
    """The table of the cases whose title has ``only`` in it, an expression."""
    failures = []
    say(f"| folder | schemes | layers that {engine} serves as planned | parameters that hold what is stored |")
    say("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for title, source, menu in cases(work):
            if not re.search(only, title):
                continue
            plan = replace(spread(source, menu), footprint=pq.plan(source, schemes=[BF16], kv="fp8").footprint)
            sensitivity = replace(sensitivity_of(source, 8.0), caches=caches_of(source))
            pq.export(source, plan, work / "out", sensitivity=sensitivity, force=True)
            counts = []
            for right, wrong in (
                judge_schemes(python, source, plan, work / "out"),
                judge_weights(python, source, work / "out"),
            ):
                known = KNOWN.get((engine, title))
                failures += [f"{title}: {problem}" for problem in wrong if not (known and re.search(known, problem))]
                counts.append(f"{right} of {right + len(wrong)}")
            used = ", ".join(sorted({unit.scheme for unit in plan.units}))
            say(f"| {title} | {used} | {' | '.join(counts)} |")
    sys.stderr.writelines(f"{failure}\n" for failure in failures)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
