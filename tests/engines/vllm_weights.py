"""Whether vLLM's own model and loader put every stored value of a written folder where it belongs.

    python vllm_weights.py FOLDER QUESTION.json      (in an environment with vLLM; see tests/engines.sh)

``QUESTION.json`` has ``layers``, which maps the name of each layer, fused as vLLM fuses it, to the Linears of the
folder it is made of, in order; and ``draft``, whether they are those that predict further tokens (MTP). Prints
``{"right": number of parameters, "wrong": [what is wrong]}`` as JSON. Parameters are filled with one byte before they
are loaded, so that those that no tensor reaches, in part or whole, are seen. Nothing is multiplied.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open
from vllm_host import POISON, loaded, without_kernels, without_operators

#: Of attention; without them in the folder they have defaults.
DEFAULTED = {f"{part}_{kind}" for part in "qkv" for kind in ("scale", "zero_point")} | {"prob_scale"}


def stored(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors


def check(
    name: str, layer: torch.nn.Module, linears: list[str], tensors: dict[str, torch.Tensor]
) -> Iterator[str | None]:
    """For each parameter what is wrong, or ``None``. The Linears of a bank are gate, up and down of each expert."""
    for parameter_name, parameter in layer.named_parameters(recurse=False):
        place, _, suffix = parameter_name.partition("_")
        if place not in ("w13", "w2"):
            if parameter_name == "e_score_correction_bias":  # of the router, which a bank holds, too
                continue
            place, suffix = "", parameter_name
        if suffix == "weight_shape":  # of the whole layer, which vLLM does not read
            continue
        chosen = [x for i, x in enumerate(linears) if not place or (place == "w2") == (i % 3 == 2)]
        parts = [tensors.get(f"{linear}.{suffix}") for linear in chosen]
        found = [part for part in parts if part is not None]
        # A bank has room for the scales of inputs that are not quantized.
        if not found and (suffix in DEFAULTED or (place and suffix == "input_global_scale")):
            continue
        if len(found) != len(parts):
            yield f"{name}.{parameter_name}: the folder has {len(found)} of its {len(parts)} parts"
            continue
        expected = torch.cat([part.reshape(-1) for part in found]).double()
        if parameter_name == "w13_input_scale" and parameter.numel() * 2 == expected.numel():  # one for gate and up
            expected = expected[::2]
        same = parameter.numel() == expected.numel() and torch.equal(parameter.data.reshape(-1).double(), expected)
        yield None if same else f"{name}.{parameter_name}: {list(parameter.shape)} does not hold what is stored"


def main(folder: Path, layers: dict[str, list[str]], *, draft: bool) -> None:
    without_operators()
    tensors = stored(folder)
    with ExitStack() as stack, torch.no_grad():
        without_kernels(stack)
        modules = dict(loaded(folder, stack, draft=draft)[0].named_modules())
        wrong = []
        right = 0
        for name, linears in layers.items():
            if name not in modules:
                wrong.append(f"{name}: vLLM's model has no such layer")
                continue
            for problem in check(name, modules.get(f"{name}.routed_experts", modules[name]), linears, tensors):
                right += problem is None
                wrong += [] if problem is None else [problem]
        # Others may be called in another way than in the folder; that they were reached can be seen all the same.
        for name, parameter in modules[""].named_parameters():
            suffix = name.rpartition(".")[2]
            if suffix in DEFAULTED or suffix in ("w13_input_global_scale", "w2_input_global_scale"):
                continue
            rows = parameter.data.reshape(len(parameter) if parameter.ndim else 1, -1).contiguous().view(torch.uint8)
            if bool((rows == POISON).all(1).any()):
                wrong.append(f"{name}: was not filled")
            else:
                right += 1
    json.dump({"right": right, "wrong": wrong}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), **json.loads(Path(sys.argv[2]).read_text()))
