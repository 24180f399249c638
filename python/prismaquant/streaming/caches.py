"""`watch_caches`: the keys and values that a layer would leave in a KV cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from prismaquant.files.sensitivity import CacheRange

__all__ = ["watch_caches"]


@contextmanager
def watch_caches(module: nn.Module, layer: int, prefix: str) -> Iterator[list[CacheRange]]:
    """Inside, every attention that is run below ``module`` (which folders call ``prefix``) is entered.

    Keys and values are seen where attention gets them: normed and turned by rotary embeddings, as caches keep them.
    An attention that calls no function of transformers' table is not entered.
    """
    names = {id(part): f"{prefix}.{name}" for name, part in module.named_modules() if name}
    seen: list[CacheRange] = []
    find: Callable[..., Callable[..., Any]] = ALL_ATTENTION_FUNCTIONS.get_interface

    def find_watched(*args: Any, **kwargs: Any) -> Callable[..., Any]:
        attend = find(*args, **kwargs)

        def watched(
            attention: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any
        ) -> Any:
            if id(attention) in names:
                amax = (float(part.detach().abs().amax()) for part in (key, value))
                seen.append(CacheRange(names[id(attention)], layer, *amax))
            return attend(attention, query, key, value, *args, **kwargs)

        return watched

    table = vars(ALL_ATTENTION_FUNCTIONS)
    table["get_interface"] = find_watched  # an instance attribute hides the method
    try:
        yield seen
    finally:
        del table["get_interface"]
