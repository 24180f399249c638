"""Writes folders of several architectures and schemes, and has an engine's own code choose schemes, load and compute.

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

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import prismaquant as pq
from prismaquant.evaluation.experts import decoded_experts
from prismaquant.facts import list_faults
from prismaquant.files.plan import Plan
from prismaquant.files.sensitivity import CacheRange
from prismaquant.formats import BF16, list_schemes
from prismaquant.model import Model
from prismaquant.model.kept import NO_LAYER
from prismaquant.streaming.model_class import model_class, read_config
from support.plans import fits, sensitivity_of, spread
from support.tiny_models import ARCHITECTURES, MIXTURES, MULTIMODAL, add_further_layer, build

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
#: the release has only with a tower, a head that it does not quantize, a field of newer configurations.
KNOWN = {
    ("vLLM 0.22.1", "gpt_oss, mixed"): r"[.]attn[.][kv]_scale: ",
    ("vLLM 0.22.1", "mistral3, mixed"): "does not support non-default RoPE",
    ("vLLM 0.22.1", "mistral3, all pinned"): "does not support non-default RoPE",
    ("vLLM 0.22.1", "qwen3_5_text, all pinned"): "has no attribute 'vision_config'",
    ("vLLM 0.22.1", "qwen3_5, all pinned"): "lm_head|^Loading safetensors",
    ("vLLM 0.22.1", "qwen3_5_moe, all pinned"): "lm_head|^Loading safetensors",
    ("vLLM 0.22.1", "qwen3_5_text, mixed"): "has no attribute 'vision_config'",
    ("vLLM 0.22.1", "qwen3_5_moe_text, mixed"): "has no attribute 'vision_config'",
}

#: Models that are computed; gpt-oss has sinks and experts of its own.
COMPUTED = r"(?!gpt_oss)"

#: Two programs that compute with the same weights round activations in another order: what is lost differs by this part
#: of it, and by this many nats where nothing is lost.
NEAR, NOISE = 0.15, 2e-4

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
    # The layers that predict further tokens are a model of their own, which has the head, too.
    further = {name.replace("mtp.", "model."): found for name, found in layers.items() if name.startswith("mtp.")}
    own = {name: found for name, found in layers.items() if not name.startswith("mtp.")}
    right, wrong = 0, []
    for is_draft, asked in ((False, own), *([(True, further)] if further else [])):
        found = ask(python, "vllm_weights.py", folder, {"draft": is_draft, "layers": asked})
        right += 0 if isinstance(found, str) else found["right"]
        wrong += [found] if isinstance(found, str) else found["wrong"]
    return right, wrong


def log_probabilities(folder: Path, tokens: list[int]) -> torch.Tensor:
    """Of stock transformers, float32 ``[tokens, vocabulary]``; experts, which it reads wrong, are decoded before."""
    with decoded_experts(folder) as readable:
        model = model_class(read_config(readable)).from_pretrained(readable, dtype="auto")
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor(tokens)[None]).logits[0].float().log_softmax(-1)
    return found


def judge_forward(python: str, source: Model, folder: Path) -> tuple[str, list[str]]:
    """What is lost in transformers and in the engine, nats per token, and what is wrong if that is not the same."""
    tokens = tokens_of(source)
    found = ask(python, "vllm_forward.py", folder, tokens)
    if isinstance(found, str):
        return "none", [found]
    original, theirs = (log_probabilities(path, tokens) for path in (source.path, folder))
    engine = torch.from_numpy(np.load(found["file"]))[:, : original.shape[1]]
    losses = [float((original.exp() * (original - other)).sum(-1).mean()) for other in (theirs, engine)]
    text = " / ".join(f"{loss:.2e}" for loss in losses)
    return text, [] if abs(losses[1] - losses[0]) < NEAR * losses[0] + NOISE else [f"loses {text}"]


def tokens_of(source: Model) -> list[int]:
    """Text for the bundled model; any few for random ones, within their sliding windows."""
    if source.path != BUNDLED:
        return list(range(3, 31))
    text = (BUNDLED.parents[1] / "data" / "evaluation.txt").read_text()[:4000]
    return list(AutoTokenizer.from_pretrained(BUNDLED)(text)["input_ids"][:256])


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
        if kind in ("qwen3_5", "qwen3_5_moe"):
            add_further_layer(work / kind)
            model = pq.open(work / kind)
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
    columns = ["layers that {} serves as planned", "parameters that hold what is stored", "KL in transformers / in {}"]
    say(f"| folder | schemes | {' | '.join(columns).format(engine, engine)} |")
    say("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for title, source, menu in cases(work):
            if not re.search(only, title):
                continue
            plan = replace(spread(source, menu), footprint=pq.plan(source, schemes=[BF16], kv="fp8").footprint)
            sensitivity = replace(sensitivity_of(source, 8.0), caches=caches_of(source))
            pq.export(source, plan, work / "out", sensitivity=sensitivity, force=True)
            known = KNOWN.get((engine, title))
            cells, problems = [], []
            for right, wrong in (
                judge_schemes(python, source, plan, work / "out"),
                judge_weights(python, source, work / "out"),
            ):
                problems += wrong
                cells.append(f"{right} of {right + len(wrong)}")
            if re.match(COMPUTED, title):
                text, wrong = judge_forward(python, source, work / "out")
                problems += wrong
                cells.append(text)
            else:
                cells.append("")
            failures += [
                f"{title}: {problem}" for problem in problems if known is None or not re.search(known, problem)
            ]
            used = ", ".join(sorted({unit.scheme for unit in plan.units}))
            say(f"| {title} | {used} | {' | '.join(cells)} |")
    sys.stderr.writelines(f"{failure}\n" for failure in failures)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
