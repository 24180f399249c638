"""The slow twin of `walk`: the whole model in memory, one graph, plain autograd.

Everything but the signs is computed another way: one forward of all windows, residuals from the full matrix formula in
float64, gradients through the whole graph at once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from prismaquant.streaming.residual import Signs

__all__ = ["forward", "load", "observe", "observe_experts", "residual_matrix"]


def load(folder: Path) -> torch.nn.Module:
    """The model in float32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


def forward(model: torch.nn.Module, ids: np.ndarray) -> torch.Tensor:
    """Logits ``[windows, seq_len, vocabulary]``."""
    return model(input_ids=torch.from_numpy(ids), use_cache=False).logits


def residual_matrix(p: np.ndarray) -> np.ndarray:
    """The matrix ``A`` with ``r = A eps`` for one token: ``(I - p 1^T) diag(sqrt(p))``."""
    return (np.eye(len(p)) - p[:, None]) * np.sqrt(p)


def observe(
    folder: Path, ids: np.ndarray, probes: int, names: list[str], *, seed: int = 0
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Linear name -> inputs ``[tokens, columns]`` and output gradients ``[probes, tokens, rows]`` of all windows."""
    model = load(folder)
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name in names:

        def hook(module: object, args: tuple[torch.Tensor], output: torch.Tensor, name: str = name) -> None:
            seen[name] = (args[0], output)

        model.get_submodule(name).register_forward_hook(hook)
    logits = forward(model, ids)
    outputs = [seen[name][1] for name in names]
    gradients = [torch.autograd.grad(logits, outputs, r, retain_graph=True) for r in _residuals(logits, probes, seed)]
    return {
        name: (seen[name][0].detach().flatten(0, -2), torch.stack([of[i].flatten(0, -2) for of in gradients]))
        for i, name in enumerate(names)
    }


def _residuals(logits: torch.Tensor, probes: int, seed: int) -> list[torch.Tensor]:
    p = torch.softmax(logits.detach().double(), dim=-1).numpy()
    windows, seq_len, vocabulary = p.shape
    result = []
    for probe in range(probes):
        r = np.empty_like(p)
        for window in range(windows):
            signs = Signs(seed, window, probe).draw(seq_len, vocabulary).numpy()
            for token in range(seq_len):
                r[window, token] = residual_matrix(p[window, token]) @ np.where(signs[token], 1.0, -1.0)
        result.append(torch.from_numpy(r).float())
    return result


def observe_experts(
    folder: Path, ids: np.ndarray, probes: int, bank: str, *, seed: int = 0
) -> list[tuple[torch.Tensor, dict[str, tuple[torch.Tensor, torch.Tensor]]]]:
    """Of each expert of ``bank``: the tokens it saw, and by ``"gate"``, ``"up"``, ``"down"`` inputs and gradients.

    The gradients come from perturbations that are added to what the packed module computes.
    """
    model = load(folder)
    module = model.get_submodule(bank)
    seen = []

    def forward(hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(hidden)
        for expert in range(module.num_experts):
            share = (weights * (chosen == expert)).sum(dim=1, keepdim=True)  # zero for tokens of other experts
            gate, up = torch.nn.functional.linear(hidden, module.gate_up_proj[expert]).chunk(2, dim=-1)
            inner = module.act_fn(gate) * up
            down = torch.nn.functional.linear(inner, module.down_proj[expert])
            total = total + share * down
            tokens = (chosen == expert).any(dim=1).nonzero().flatten()
            seen.append((tokens, {"gate": (hidden, gate), "up": (hidden, up), "down": (inner, down)}))
        return total

    module.forward = forward
    logits = model(input_ids=torch.from_numpy(ids), use_cache=False).logits
    residuals = _residuals(logits, probes, seed)
    found = []
    for tokens, parts in seen:
        outputs = [output for _, output in parts.values()]
        gradients = [torch.autograd.grad(logits, outputs, r, retain_graph=True) for r in residuals]
        found.append(
            (
                tokens,
                {
                    name: (x.detach()[tokens], torch.stack([of[number][tokens] for of in gradients]))
                    for number, (name, (x, _)) in enumerate(parts.items())
                },
            )
        )
    return found
