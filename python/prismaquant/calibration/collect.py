"""`collect`: the sums that prices need, over all visits of one layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from prismaquant.errors import ModelError
from prismaquant.streaming import Observation, Visit

__all__ = ["LinearStatistics", "collect"]


@dataclass(frozen=True, slots=True)
class LinearStatistics:
    """Sums for one Linear ``[rows, columns]``: ``x`` its inputs, ``g`` its output gradients, ``t`` a token.

    Attributes
    ----------
    tokens
        How many tokens were summed.
    fisher_trace
        Sum over ``t`` of ``|g_t|^2 |x_t|^2``, mean over probes: trace of the per-token Fisher diagonal of the weight.
    fisher_rows
        float64 ``[rows]``: sum over ``t`` of ``g_t^2``, mean over probes.
    gram
        float32 ``[columns, columns]``: ``X^T X``. One tensor for all Linears that share their input.
    input_amax
        Largest ``|x|``.
    """

    tokens: int
    fisher_trace: float
    fisher_rows: torch.Tensor
    gram: torch.Tensor
    input_amax: float

    def __repr__(self) -> str:
        return f"LinearStatistics({self.tokens} tokens, trace {self.fisher_trace:.4g}, amax {self.input_amax:.4g})"


def collect(visits: Iterable[Visit]) -> dict[str, LinearStatistics]:
    """Linear name -> sums over ``visits``, which are of one layer."""
    inputs: dict[str, _InputSums] = {}  # by the first Linear that gets the input
    gradients: dict[str, _GradientSums] = {}
    leaders: dict[str, str] = {}
    for visit in visits:
        first: dict[int, str] = {}
        for name, seen in visit.linears.items():
            leader = first.setdefault(id(seen.input), name)
            if (before := leaders.setdefault(name, leader)) != leader:
                raise ModelError(f"gets the input of {before!r} in one batch, of {leader!r} in another", where=name)
            if leader == name:
                inputs.setdefault(name, _InputSums()).add(seen.input)
            gradients.setdefault(name, _GradientSums()).add(seen, inputs[leader].squares)
    return {name: sums.finish(inputs[leaders[name]]) for name, sums in gradients.items()}


class _InputSums:
    def __init__(self) -> None:
        self.tokens = 0
        self.amax = 0.0
        self.gram = torch.zeros(())
        self.squares = torch.zeros(())  # |x_t|^2 of the batch that was added last

    def add(self, x: torch.Tensor) -> None:
        self.tokens += len(x)
        self.amax = max(self.amax, float(x.abs().max()))
        if self.gram.ndim == 0:
            self.gram = x.new_zeros(x.shape[1], x.shape[1])
        self.gram.addmm_(x.T, x)
        self.squares = x.square().sum(dim=1)


class _GradientSums:
    def __init__(self) -> None:
        self.trace = 0.0
        self.rows = torch.zeros((), dtype=torch.float64)

    def add(self, seen: Observation, input_squares: torch.Tensor) -> None:
        squares = seen.gradients.square().mean(dim=0)  # [tokens, rows]
        # Per token: the square of a sum over tokens would be another matrix, dominated by their cross terms.
        self.trace += float(squares.sum(dim=1).double() @ input_squares.double())
        self.rows = self.rows + squares.sum(dim=0).double()

    def finish(self, inputs: _InputSums) -> LinearStatistics:
        return LinearStatistics(inputs.tokens, self.trace, self.rows, inputs.gram, inputs.amax)
