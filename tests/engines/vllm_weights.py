"""Whether vLLM's own model and loader put every stored value of a written folder where it belongs.

    python vllm_weights.py FOLDER LAYERS.json      (in an environment with vLLM; see tests/engines.sh)

``LAYERS.json`` maps the name of each layer, fused as vLLM fuses it, to the Linears of the folder that it is made of, in
order. Prints ``{"right": number of parameters, "wrong": [what is wrong]}`` as JSON. Parameters are filled with one byte
before they are loaded, so that those that no tensor reaches, in part or whole, are seen. Nothing is multiplied.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}

import torch
import vllm.platforms
from safetensors import safe_open
from vllm.platforms.cpu import CpuPlatform
from vllm.platforms.interface import DeviceCapability

POISON = 0xFB
#: Of attention; without them in the folder they have defaults.
DEFAULTED = {f"{part}_{kind}" for part in "qkv" for kind in ("scale", "zero_point")} | {"prob_scale"}


class HostPlatform(CpuPlatform):
    """A processor that says it could do what the newest devices can: schemes are chosen by that."""

    @classmethod
    def get_device_capability(cls, device_id: int = 0) -> DeviceCapability:
        return DeviceCapability(major=10, minor=0)

    @classmethod
    def get_attn_backend_cls(cls, *_: Any, **__: Any) -> str:
        return "vllm.v1.attention.backends.cpu_attn.CPUAttentionBackend"


def without_kernels(stack: ExitStack) -> None:
    """Schemes choose a kernel when they are made; none is at hand, and none is in question."""
    from vllm.model_executor.layers.quantization.compressed_tensors import compressed_tensors_moe, schemes

    kernel = mock.MagicMock(__name__="none")
    attention = "vllm.v1.attention.backends.cpu_attn.CPUAttentionBackendImpl"
    from vllm.model_executor.layers.attention import mla_attention

    if hasattr(mla_attention, "get_mla_prefill_backend"):
        stack.enter_context(mock.patch.object(mla_attention, "get_mla_prefill_backend", return_value=kernel))
    stack.enter_context(mock.patch(attention, return_value=mock.MagicMock(dcp_world_size=1)))  # it knows no latents
    for package in (schemes, compressed_tensors_moe):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            try:
                module = importlib.import_module(found.name)
            except ImportError:  # of a package of another maker's devices
                continue
            for name in vars(module):
                if name.startswith(("init_", "choose_")) and name.endswith("_kernel"):
                    stack.enter_context(mock.patch.object(module, name, return_value=kernel))
                elif name.startswith("select_") and name.endswith("_moe_backend"):
                    stack.enter_context(mock.patch.object(module, name, return_value=(kernel, kernel)))


def loaded(folder: Path, stack: ExitStack) -> torch.nn.Module:
    """vLLM's model with its parameters as its loader leaves them, before they are prepared for kernels."""
    from vllm.config import set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader import get_model_loader
    from vllm.model_executor.model_loader.utils import initialize_model

    config = EngineArgs(
        model=str(folder),
        max_model_len=64,
        dtype="bfloat16",
        enforce_eager=True,
        skip_tokenizer_init=True,
        compilation_config={"custom_ops": ["none"]},  # activations as torch has them
    ).create_engine_config()
    stack.enter_context(set_current_vllm_config(config))
    rendezvous = f"file://{folder}.rendezvous"
    init_distributed_environment(1, 0, rendezvous, 0, "gloo")
    initialize_model_parallel(1)
    torch.set_default_dtype(torch.bfloat16)
    model: torch.nn.Module = initialize_model(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("w13_input_scale", "w2_input_scale")):  # the loader compares it with what is there
            continue
        parameter.data.view(-1).view(torch.uint8).fill_(POISON)
    loader = get_model_loader(config.load_config)
    model.load_weights(loader.get_all_weights(config.model_config, model))
    return model


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


def main(folder: Path, layers: dict[str, list[str]]) -> None:
    vllm.platforms._current_platform = HostPlatform()
    operators = torch.library.Library("_C", "FRAGMENT")
    for name in ("gelu_and_mul", "gelu_tanh_and_mul"):  # looked up when a model is built, never run
        if not hasattr(torch.ops._C, name):
            operators.define(f"{name}(Tensor! out, Tensor input) -> ()")
    tensors = stored(folder)
    with ExitStack() as stack, torch.no_grad():
        without_kernels(stack)
        modules = dict(loaded(folder, stack).named_modules())
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
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
