"""What solvers want to know of the calibration text: Grams of inputs and of output gradients, on the whole model.

Plain torch hooks; everything is kept in memory, so small models only.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from network import Network
from torch import nn

from prismaquant.streaming.residual import residual

__all__ = ["Grams", "Statistics", "capture", "walk_shifted"]

_BATCH = 8  # windows


@dataclass
class Statistics:
    """Sums over tokens ``t``, by the name of a Linear.

    Attributes
    ----------
    tokens
        How many it saw.
    gram
        float32 ``[columns, columns]``: sum of ``x_t x_t^T``; one tensor for Linears that share their input.
    output_gram
        float32 ``[rows, rows]``: sum of ``g_t g_t^T``, ``g`` the gradient of a sampled Fisher residual.
    input_amax
        The largest magnitude of the inputs.
    """

    tokens: dict[str, int] = field(default_factory=dict)
    input_amax: dict[str, float] = field(default_factory=dict)
    gram: dict[str, torch.Tensor] = field(default_factory=dict)
    output_gram: dict[str, torch.Tensor] = field(default_factory=dict)

    def pooled(self, name: str) -> tuple[torch.Tensor, int]:
        """Gram and tokens of an expert's Linear and its like in the other experts of the layer."""
        bank, _, place = name.rpartition(".experts.")
        like = [n for n in self.gram if n.startswith(f"{bank}.experts.") and n.endswith(place.partition(".")[2])]
        return torch.stack([self.gram[n] for n in like]).sum(0), sum(self.tokens[n] for n in like)


def capture(network: Network, ids: torch.Tensor, seed: int) -> Statistics:
    """Statistics of the source model.

    The residual of a token, ``r = sqrt(p) eps - p <sqrt(p), eps>``, has the second moment ``diag(p) - p p^T``: the
    Hessian of KL(p || q) in the logits. One backward for all tokens of a window at once, without a mean.

    Parameters
    ----------
    ids
        int64 ``[windows, seq_len]``.
    seed
        Fixes the residuals.
    """
    result = Statistics()
    sums = {}  # by group: sums in float64, as tens of thousands of tokens are added
    outputs: dict[str, torch.Tensor] = {}
    inputs: dict[str, torch.Tensor] = {}

    def enter(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            inputs[name], outputs[name] = args[0].detach(), output

        return hook

    modules = {name: network.model.get_submodule(name) for name in network.names()}
    handles = [module.register_forward_hook(enter(name)) for name, module in modules.items()]
    generator = torch.Generator().manual_seed(seed)
    for part in ids.split(_BATCH):
        inputs.clear()
        outputs.clear()
        logits = network.logits(part)
        signs = torch.rand(logits.shape, generator=generator) < 0.5
        direction = residual(logits.detach(), signs)
        gradients = torch.autograd.grad(logits, list(outputs.values()), direction)
        for name, gradient in zip(outputs, gradients, strict=True):
            _add(sums, ("output", name), gradient)
        for group in (group for layer in network.groups for group in layer if group[0] in inputs):
            _add(sums, ("input", group[0]), inputs[group[0]])
            for name in group:
                result.tokens[name] = result.tokens.get(name, 0) + inputs[name].flatten(0, -2).shape[0]
                amax = float(inputs[name].abs().max())
                result.input_amax[name] = max(amax, result.input_amax.get(name, 0.0))
    for handle in handles:
        handle.remove()
    for group in (group for layer in network.groups for group in layer):
        rows = {name: network.weight(name).shape[0] for name in group}
        columns = network.weight(group[0]).shape[1]
        gram = sums.get(("input", group[0]), torch.zeros(columns, columns)).float()
        for name in group:
            result.tokens.setdefault(name, 0)
            result.gram[name] = gram
            result.output_gram[name] = sums.get(("output", name), torch.zeros(rows[name], rows[name])).float()
    return result


def _add(sums: dict[tuple[str, str], torch.Tensor], key: tuple[str, str], values: torch.Tensor) -> None:
    flat = values.flatten(0, -2)
    gram = (flat.T @ flat).double()
    sums[key] = sums[key] + gram if key in sums else gram


@dataclass(frozen=True)
class Grams:
    """Of one group behind a quantized prefix, ``y`` its inputs there and ``x`` those in the source model.

    Attributes
    ----------
    gram
        float32 ``[columns, columns]``: sum of ``y y^T``.
    cross_gram
        float32 ``[columns, columns]``: sum of ``x y^T``.
    """

    gram: torch.Tensor
    cross_gram: torch.Tensor


@torch.no_grad()
def walk_shifted(
    network: Network, ids: torch.Tensor, solve: Callable[[list[str], Grams], dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """Quantizes group after group, each with the inputs that it will see behind those before it.

    Parameters
    ----------
    solve
        Names of a group and its Grams -> decoded weights.

    Returns
    -------
    dict
        Decoded weights of all Linears.
    """
    quantized = Network(deepcopy(network.model), nn.ModuleList(), network.groups)
    quantized.layers = quantized.model.model.layers
    parts = ids.split(_BATCH)
    hidden, calls = _entrance(network, parts)
    behind = [part.clone() for part in hidden]
    decoded: dict[str, torch.Tensor] = {}
    for index, groups in enumerate(network.groups):
        for group in groups:
            gram = cross = torch.zeros((), dtype=torch.float64)
            for x, y, call in zip(hidden, behind, calls, strict=True):
                source = _input_of(network, index, group[0], x, call)
                seen = _input_of(quantized, index, group[0], y, call)
                gram = gram + (seen.T @ seen).double()
                cross = cross + (source.T @ seen).double()
            for name, weight in solve(group, Grams(gram.float(), cross.float())).items():
                quantized.weight(name).copy_(weight)
                decoded[name] = weight
        hidden = [_run(network.layers[index], x, call) for x, call in zip(hidden, calls, strict=True)]
        behind = [_run(quantized.layers[index], y, call) for y, call in zip(behind, calls, strict=True)]
    return decoded


class _Reached(Exception):
    """Ends a run where its purpose is reached."""


def _entrance(network: Network, parts: tuple[torch.Tensor, ...]) -> tuple[list[torch.Tensor], list[dict]]:
    """Input of the first layer for each batch, and the other arguments that layers are called with."""
    hidden: list[torch.Tensor] = []
    calls: list[dict] = []

    def hook(_: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict) -> None:
        hidden.append(args[0] if args else kwargs["hidden_states"])
        calls.append({key: value for key, value in kwargs.items() if key != "hidden_states"})
        raise _Reached

    handle = network.layers[0].register_forward_pre_hook(hook, with_kwargs=True)
    for part in parts:
        try:
            network.logits(part)
        except _Reached:
            continue
    handle.remove()
    return hidden, calls


def _run(layer: nn.Module, hidden: torch.Tensor, call: dict) -> torch.Tensor:
    output = layer(hidden, **call)
    return output[0] if isinstance(output, tuple) else output


def _input_of(network: Network, index: int, name: str, hidden: torch.Tensor, call: dict) -> torch.Tensor:
    """What the Linear called ``name`` gets in a run of its layer, ``[tokens, columns]``."""
    got: list[torch.Tensor] = []

    def hook(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        got.append(args[0].flatten(0, -2))
        raise _Reached

    handle = network.model.get_submodule(name).register_forward_pre_hook(hook)
    try:
        _run(network.layers[index], hidden, call)
    except _Reached:
        pass
    finally:
        handle.remove()
    return got[0]
