"""`Observation`: what one Linear saw in one run of its layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prismaquant.errors import ModelError

__all__ = ["Observation", "Traffic", "watch"]


@dataclass(frozen=True, slots=True)
class Observation:
    """Input and output gradients of one Linear. Linears that get the same input hold the very same tensor.

    Attributes
    ----------
    input
        float32 ``[tokens, columns]``.
    gradients
        float32 ``[probes, tokens, rows]``: per token, of the sampled residual ``<r, logits>``.
    weight
        float32 ``[rows, columns]``: its own, real only while the layer is.
    positions
        int64 ``[tokens]``: which tokens of the batch these are, for an expert that sees some of them; ``None``: all, in
        order.
    all_inputs
        float32 ``[all tokens, columns]``: the input that it would have if every token were routed to it, where that was
        asked for; ``None``: it was not.
    """

    input: torch.Tensor
    gradients: torch.Tensor
    weight: torch.Tensor
    positions: torch.Tensor | None = None
    all_inputs: torch.Tensor | None = None

    def __repr__(self) -> str:
        return f"Observation({list(self.input.shape)} -> {list(self.gradients.shape)})"


@dataclass(frozen=True, slots=True)
class Traffic:
    """What passes a Linear in one run.

    Attributes
    ----------
    input, output
        ``[windows, seq_len, columns]`` and ``[windows, seq_len, rows]``; of an expert ``[tokens, ...]``.
    weight
        ``[rows, columns]``.
    positions, all_inputs
        As in `Observation`.
    """

    input: torch.Tensor
    output: torch.Tensor
    weight: torch.Tensor
    positions: torch.Tensor | None = None
    all_inputs: torch.Tensor | None = None


@contextmanager
def watch(linears: Mapping[str, nn.Module]) -> Iterator[dict[str, Traffic]]:
    """Inside, every call of one of ``linears`` is entered under its name.

    Raises
    ------
    ModelError
        If a Linear is called a second time: its Fisher trace would need both inputs at once.
    """
    traffic: dict[str, Traffic] = {}

    def enter(name: str) -> Any:
        def hook(module: Any, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if name in traffic:
                raise ModelError("is called twice in one run of its layer", where=name)
            traffic[name] = Traffic(args[0], output, module.weight)

        return hook

    handles = [module.register_forward_hook(enter(name)) for name, module in linears.items()]
    try:
        yield traffic
    finally:
        for handle in handles:
            handle.remove()
