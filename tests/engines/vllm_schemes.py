"""Which scheme vLLM's own code chooses for every layer of a written folder, under the names by which it asks.

    python vllm_schemes.py FOLDER NAMES.json      (in an environment with vLLM; see tests/engines.sh)

``NAMES.json`` lists the layers, fused as vLLM fuses them. Prints, as a JSON object, the class that serves each, and
``null`` for those that are not quantized.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from vllm.model_executor.layers.quantization.compressed_tensors import compressed_tensors
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors import CompressedTensorsConfig
from vllm.model_executor.layers.quantization.compressed_tensors.schemes import CompressedTensorsScheme

FUSED = {
    "qkv_proj": ["q_proj", "k_proj", "v_proj"],
    "gate_up_proj": ["gate_proj", "up_proj"],
    "in_proj_qkvz": ["in_proj_qkv", "in_proj_z"],
    "in_proj_ba": ["in_proj_b", "in_proj_a"],
}
_CLASSES = {
    **dict.fromkeys(FUSED, "MergedColumnParallelLinear"),
    "qkv_proj": "QKVParallelLinear",
    "lm_head": "ParallelLMHead",
}


def layer_of(name: str) -> torch.nn.Module:
    """A module of the class name that vLLM has for the layer: that is all that the choice looks at."""
    kind = _CLASSES.get(name.rpartition(".")[2], "RowParallelLinear")
    return type(kind, (torch.nn.Linear,), {})(1, 1)


def without_kernels(stack: ExitStack) -> None:
    """Schemes choose their kernels when they are made, for the device at hand; neither is in question here."""

    def note(self: Any, *_: Any, use_a16: bool = False, **__: Any) -> None:
        self.use_a16 = use_a16

    for found in vars(compressed_tensors).values():
        if isinstance(found, type) and issubclass(found, CompressedTensorsScheme):
            stack.enter_context(mock.patch.object(found, "__init__", note))
    stack.enter_context(mock.patch.object(CompressedTensorsConfig, "_check_scheme_supported", return_value=True))


def main(folder: Path, names: list[str]) -> None:
    section = json.loads((folder / "config.json").read_text())["quantization_config"]
    config = CompressedTensorsConfig.from_config(section)
    config.packed_modules_mapping = FUSED
    found: dict[str, str | None] = {}
    with ExitStack() as stack:
        without_kernels(stack)
        for name in names:
            ignored = compressed_tensors.should_ignore_layer(name, ignore=config.ignore, fused_mapping=FUSED)
            scheme = None if ignored else config.get_scheme(layer=layer_of(name), layer_name=name)
            a16 = " (16-bit activations)" if getattr(scheme, "use_a16", False) else ""
            found[name] = None if scheme is None else f"{type(scheme).__name__}{a16}"
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
