"""vLLM's own model and loader on a machine without a GPU: its CUDA build, with the platform of a CPU and no kernels."""

from __future__ import annotations

import importlib
import os
import pkgutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}

import torch
import vllm.platforms
from vllm.platforms.cpu import CpuPlatform
from vllm.platforms.interface import DeviceCapability

__all__ = ["POISON", "loaded", "without_kernels", "without_operators"]

#: Gone with the object are its operators.
_OPERATORS = torch.library.Library("_C", "FRAGMENT")

#: In every byte of a parameter before it is loaded.
POISON = 0xFB


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


def loaded(folder: Path, stack: ExitStack, *, draft: bool = False) -> tuple[torch.nn.Module, Any]:
    """vLLM's model, its parameters as its loader leaves them and not prepared for kernels; and its configuration."""
    from vllm.config import SpeculativeConfig, set_current_vllm_config
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
        hf_overrides=SpeculativeConfig.hf_config_override if draft else {},
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
    return model, config


def without_operators() -> None:
    """Functions of the compiled part that are looked up when a model is built, and never run."""
    for name in ("gelu_and_mul", "gelu_tanh_and_mul"):
        if not hasattr(torch.ops._C, name):
            _OPERATORS.define(f"{name}(Tensor! out, Tensor input) -> ()")
    vllm.platforms._current_platform = HostPlatform()
