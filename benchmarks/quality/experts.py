"""Packed experts as Linears of their own, so that hooks see what each of them gets."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

__all__ = ["Experts", "unpack_experts"]


class Experts(nn.ModuleList):
    """One module per expert with ``gate_proj``, ``up_proj`` and ``down_proj``; called as transformers calls its own."""

    def __init__(self, packed: nn.Module) -> None:
        super().__init__()
        self.activate = partial(packed.act_fn)  # not the module itself, which would count as an expert
        for gate_up, down in zip(packed.gate_up_proj.data, packed.down_proj.data, strict=True):
            gate, up = gate_up.chunk(2)
            weights = {"gate_proj": gate, "up_proj": up, "down_proj": down}
            self.append(nn.ModuleDict({name: _linear(weight) for name, weight in weights.items()}))

    def forward(self, hidden: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """``hidden`` ``[tokens, columns]``; ``chosen``, ``shares`` ``[tokens, k]``: experts and weights of a token."""
        output = torch.zeros_like(hidden)
        for index, expert in enumerate(self):
            token, place = torch.where(chosen == index)
            if len(token) == 0:
                continue
            x = hidden[token]
            y = expert["down_proj"](self.activate(expert["gate_proj"](x)) * expert["up_proj"](x))
            output = output.index_add(0, token, y * shares[token, place, None])
        return output


def _linear(weight: torch.Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight.clone()
    return linear


def unpack_experts(model: nn.Module) -> None:
    """Puts `Experts` in the place of every bank whose weights are ``[experts, rows, columns]``."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if getattr(child, "gate_up_proj", None) is not None and getattr(child.gate_up_proj, "ndim", 0) == 3:
                setattr(module, name, Experts(child))
