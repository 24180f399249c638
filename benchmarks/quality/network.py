"""A small causal model as a whole, with its decoder Linears grouped by the input that they share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from experts import unpack_experts
from torch import nn
from transformers import AutoModelForCausalLM

__all__ = ["Network", "plant_outliers"]


@dataclass
class Network:
    """``groups[layer]``: names of Linears that get the same input, in the order of their calls."""

    model: nn.Module
    layers: nn.ModuleList
    groups: list[list[list[str]]]

    @classmethod
    def load(cls, folder: Path) -> Network:
        """The model in ``folder``, in float32."""
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
        unpack_experts(model)
        return cls.of(model)

    @classmethod
    def of(cls, model: nn.Module) -> Network:
        """``model`` with its Linears found by one run."""
        layers = model.model.layers
        groups = []
        for index, layer in enumerate(layers):
            seen: dict[int, list[str]] = {}
            kept = []  # inputs must live, or another tensor may get their address

            def enter(name: str, seen: dict[int, list[str]] = seen, kept: list[torch.Tensor] = kept):
                def hook(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
                    kept.append(args[0])
                    seen.setdefault(id(args[0]), []).append(name)

                return hook

            prefix = f"model.layers.{index}."
            linears = {prefix + n: m for n, m in layer.named_modules() if isinstance(m, nn.Linear)}
            handles = [m.register_forward_pre_hook(enter(n)) for n, m in linears.items()]
            with torch.no_grad():
                model(torch.zeros(1, 8, dtype=torch.long))
            for handle in handles:
                handle.remove()
            reached = {name for group in seen.values() for name in group}
            groups.append([*seen.values(), *_of_experts(name for name in linears if name not in reached)])
        return cls(model, layers, groups)

    @property
    def experts(self) -> list[str]:
        """Linears that see only the tokens which a router sends them."""
        return [name for name in self.names() if ".experts." in name]

    def weight(self, name: str) -> torch.Tensor:
        """The weight ``[rows, columns]`` of the Linear called ``name``; may be written to."""
        return self.model.get_submodule(name).weight.data

    def names(self) -> list[str]:
        """All Linears."""
        return [name for layer in self.groups for group in layer for name in group]

    def sample(self, windows: int, seq_len: int, seed: int) -> torch.Tensor:
        """int64 ``[windows, seq_len]``: text that the model itself writes, from its first token on."""
        torch.manual_seed(seed)
        start = torch.full((windows, 1), self.model.config.bos_token_id)
        length = {"min_new_tokens": seq_len - 1, "max_length": seq_len}
        return self.model.generate(start, attention_mask=torch.ones_like(start), do_sample=True, top_k=0, **length)

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """float32 ``[windows, seq_len, vocabulary]``."""
        return self.model(ids, use_cache=False).logits


def _of_experts(names: Iterable[str]) -> list[list[str]]:
    """Linears of experts, grouped by their input: the gate's and the up projection's is the same."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.replace(".gate_proj", ".up_proj"), []).append(name)
    return list(groups.values())


def plant_outliers(network: Network, channels: int = 2, factor: float = 16.0, seed: int = 0) -> None:
    """Multiplies ``channels`` of every norm in front of Linears by ``factor``, and divides their columns by it.

    The function stays the same; the inputs get outlier channels as large models have them. Of dense models only.
    """
    if network.experts:
        raise SystemExit("outliers are planted in dense models only")
    draw = np.random.default_rng(seed)
    for index, layer in enumerate(network.layers):
        for norm, group in (
            (layer.input_layernorm, _having(network.groups[index], "q_proj")),
            (layer.post_attention_layernorm, _having(network.groups[index], "gate_proj")),
        ):
            chosen = torch.from_numpy(draw.choice(norm.weight.numel(), channels, replace=False))
            norm.weight.data[chosen] *= factor
            for name in group:
                network.weight(name)[:, chosen] /= factor


def _having(groups: list[list[str]], suffix: str) -> list[str]:
    return next(group for group in groups if any(name.endswith(suffix) for name in group))
