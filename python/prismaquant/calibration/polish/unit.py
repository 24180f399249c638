"""One unit: solved again for the inputs behind the quantized layers before it, and the better rendering kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from prismaquant.codec import get_codec
from prismaquant.rendering.render import Grams
from prismaquant.streaming.experts import packed_parameters

if TYPE_CHECKING:
    from prismaquant.model import Unit
    from prismaquant.rendering.grams import OutputGram
    from prismaquant.rendering.render import Rendering

__all__ = ["Inputs", "Weights", "decoded", "mean_error", "mismatch_grams"]

#: The input of a unit in the source, and behind the quantized prefix: float32 ``[tokens, columns]`` each.
Inputs: TypeAlias = tuple[torch.Tensor, torch.Tensor]
#: By the name of the parameter.
Weights: TypeAlias = dict[str, torch.Tensor]


def mismatch_grams(batches: Iterable[Inputs], output_grams: Mapping[str, OutputGram]) -> dict[str, Grams]:
    """What the solver takes for each Linear: Gram of the inputs it gets, and of those against the source's."""
    gram = cross = torch.zeros(())
    tokens = 0
    for source, prefix in batches:
        if not tokens:
            gram, cross = (prefix.new_zeros(prefix.shape[1], prefix.shape[1]) for _ in range(2))
        gram.addmm_(prefix.T, prefix)
        cross.addmm_(source.T, prefix)
        tokens += len(source)
    gram, cross = gram.cpu(), cross.cpu()
    return {
        name: Grams(gram, tokens, of_outputs.sums, of_outputs.tokens, cross)
        for name, of_outputs in output_grams.items()
    }


def decoded(unit: Unit, rendering: Rendering, device: torch.device, threads: int | None) -> Weights:
    """Name of each parameter of ``unit`` -> its values in float32: ``[rows, columns]``, of a bank those it packs."""
    codec = get_codec(rendering.format)
    weights = {
        name: torch.from_numpy(codec.decode(quantized, threads=threads)).to(device)
        for name, quantized in rendering.quantized.items()
    }
    if not unit.experts:
        return {_parameter(name): weight for name, weight in weights.items()}
    return {
        parameter: torch.cat([weights[linear.name] for linear in linears]).view(unit.experts, -1, linears[0].columns)
        for parameter, linears in packed_parameters(unit).items()
    }


def _parameter(linear: str) -> str:
    return f"{linear}.weight"


def mean_error(
    batches: Iterable[Inputs],
    linears: Mapping[str, nn.Linear],
    candidates: list[Weights],
    output_grams: Mapping[str, OutputGram],
) -> list[float]:
    """For each candidate half the mean over tokens of ``e^T G e``, summed over the Linears.

    ``e`` is its output for the input behind the prefix, minus the source's output for its own input.

    Parameters
    ----------
    candidates
        As `decoded` gives them.
    """
    grams = {
        name: torch.from_numpy(of_outputs.sums).to(linears[name].weight.device) / max(of_outputs.tokens, 1)
        for name, of_outputs in output_grams.items()
    }
    errors, tokens = [0.0] * len(candidates), 0
    for source, prefix in batches:
        tokens += len(source)
        for name, gram in grams.items():
            target = source @ linears[name].weight.T
            for index, weights in enumerate(candidates):
                errors[index] += _squared(prefix @ weights[_parameter(name)].T - target, gram)
    return [error / (2 * tokens) for error in errors]


def _squared(error: torch.Tensor, gram: torch.Tensor) -> float:
    """Sum over tokens of ``e^T G e``; ``gram [rows, b]`` has the diagonal blocks of ``G``, one below the other."""
    rows, block = gram.shape
    missing = -rows % block
    blocks = nn.functional.pad(gram, (0, 0, 0, missing)).view(-1, block, block)
    parts = nn.functional.pad(error, (0, missing)).view(len(error), -1, block).transpose(0, 1)  # [blocks, tokens, b]
    return float(((parts @ blocks) * parts).sum(dtype=torch.float64))
