"""The keys and values that attention would leave in a KV cache: seen by `watch_caches`, changed by `replaced`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from prismaquant.files.sensitivity import CacheRange

__all__ = ["KeysAndValues", "replaced", "round_to_fp8", "watch_caches"]

KeysAndValues: TypeAlias = tuple[torch.Tensor, torch.Tensor]

_LARGEST_E4M3 = 448.0


def round_to_fp8(x: torch.Tensor, scale: float) -> torch.Tensor:
    """``x`` as E4M3 codes times ``scale`` stand for it: to the nearest, what is larger becomes the largest."""
    codes = (x / scale).clamp(-_LARGEST_E4M3, _LARGEST_E4M3).to(torch.float8_e4m3fn)
    return codes.to(x.dtype) * scale


@contextmanager
def replaced(change: Callable[[nn.Module, torch.Tensor, torch.Tensor], KeysAndValues]) -> Iterator[None]:
    """Inside, attention gets what ``change`` makes of it, its keys and its values.

    These are normed and turned by rotary embeddings, as caches keep them. An attention that calls no function of
    transformers' table is not reached.
    """
    find: Callable[..., Callable[..., Any]] = ALL_ATTENTION_FUNCTIONS.get_interface

    def find_changed(*args: Any, **kwargs: Any) -> Callable[..., Any]:
        attend = find(*args, **kwargs)

        def changed(
            attention: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any
        ) -> Any:
            return attend(attention, query, *change(attention, key, value), *args, **kwargs)

        return changed

    table = vars(ALL_ATTENTION_FUNCTIONS)
    table["get_interface"] = find_changed  # an instance attribute hides the method
    try:
        yield
    finally:
        del table["get_interface"]


@contextmanager
def watch_caches(module: nn.Module, layer: int, prefix: str) -> Iterator[list[CacheRange]]:
    """Inside, every attention that is run below ``module`` (which folders call ``prefix``) is entered."""
    names = {id(part): f"{prefix}.{name}" for name, part in module.named_modules() if name}
    seen: list[CacheRange] = []

    def enter(attention: nn.Module, key: torch.Tensor, value: torch.Tensor) -> KeysAndValues:
        if id(attention) in names:
            amax = (float(part.detach().abs().amax()) for part in (key, value))
            seen.append(CacheRange(names[id(attention)], layer, *amax))
        return key, value

    with replaced(enter):
        yield seen
