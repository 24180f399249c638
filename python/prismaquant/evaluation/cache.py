"""The FP8 KV cache of a folder that has scales for one: keys and values are rounded as engines keep them.

transformers 5.24 with compressed-tensors 0.20 leaves them as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from prismaquant.model.reasons import WRAPPERS
from prismaquant.streaming.caches import KeysAndValues, replaced, round_to_fp8

__all__ = ["CacheScales", "read_cache_scales", "rounded_cache"]

#: Attention, without the names around the language model -> scale of keys, and of values.
CacheScales = dict[str, dict[str, float]]

_SCALE = re.compile(r"(.+)[.]([kv])_scale")


def read_cache_scales(folder: Path) -> CacheScales:
    """What the tensors of ``folder`` say; empty where there are none."""
    scales: CacheScales = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if match := _SCALE.fullmatch(name):
                    scales.setdefault(_bare(match[1]), {})[match[2]] = float(file.get_tensor(name).float().reshape(()))
    return scales


@contextmanager
def rounded_cache(model: nn.Module, scales: CacheScales) -> Iterator[None]:
    """Inside, the attentions of ``model`` get their keys and values in FP8, in ``scales``."""
    if not scales:
        yield
        return
    found = {id(part): scales[_bare(name)] for name, part in model.named_modules() if _bare(name) in scales}

    def rounded(attention: nn.Module, key: torch.Tensor, value: torch.Tensor) -> KeysAndValues:
        scale = found.get(id(attention), {})
        key = round_to_fp8(key, scale["k"]) if "k" in scale else key
        value = round_to_fp8(value, scale["v"]) if "v" in scale else value
        return key, value

    with replaced(rounded):
        yield


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)
