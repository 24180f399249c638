"""Scales of an FP8 KV cache: what engines divide keys and values by before they keep them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prismaquant.formats import BF16
from prismaquant.model.kv_cache import layer_caches, scaled_layers
from prismaquant.rendering.input_scale import input_scale

if TYPE_CHECKING:
    from prismaquant.files.plan import Plan
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model

__all__ = ["SCHEME", "SUFFIXES", "cache_scales"]

#: What ``kv_cache_scheme`` says where a folder has scales. Engines know no other but one scale per head.
SCHEME: Mapping[str, Any] = {
    "num_bits": 8,
    "type": "float",
    "strategy": "tensor",
    "symmetric": True,
    "dynamic": False,
}

#: Of the tensors below the name of an attention, F32 ``[1]``.
SUFFIXES = ("k_scale", "v_scale")


def cache_scales(model: Model, plan: Plan, sensitivity: Sensitivity | None) -> dict[str, float]:
    """Tensor name -> multiplier ``float32(amax / 448)``, if ``plan`` is for an FP8 cache and the ranges were measured.

    Empty, too, where nothing is quantized: there is then no section that could say what they are. Layers that keep a
    latent or a state have none. Those that the source has itself are passed through like all its tensors.
    """
    is_asked = plan.footprint is not None and plan.footprint.kv == "fp8"
    if sensitivity is None or not is_asked or not any(unit.scheme != BF16 for unit in plan.units):
        return {}
    caches = layer_caches(model.text_config, model.architecture, model.num_layers, str(model.path))
    layers = scaled_layers(caches)
    return {
        f"{seen.name}.{suffix}": input_scale(amax)
        for seen in sensitivity.caches
        if seen.layer in layers
        for suffix, amax in zip(SUFFIXES, (seen.key_amax, seen.value_amax), strict=True)
        if f"{seen.name}.{suffix}" not in model.tensors
    }
