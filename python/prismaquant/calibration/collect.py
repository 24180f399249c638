"""`collect`: the sums that prices need, over all visits of one layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from prismaquant.errors import ModelError
from prismaquant.rendering.grams import BLOCK_ROWS, WHOLE_ROWS
from prismaquant.rendering.render import Grams
from prismaquant.streaming import Observation, Visit

__all__ = ["LinearStatistics", "collect"]


@dataclass(frozen=True, slots=True)
class LinearStatistics:
    """Sums for one Linear ``[rows, columns]``: ``x`` its inputs, ``g`` its output gradients, ``t`` a token.

    Attributes
    ----------
    tokens
        How many tokens were summed; in the Gram of an expert there may be more (`Observation.all_inputs`).
    fisher_trace
        Sum over ``t`` of ``|g_t|^2 |x_t|^2``, mean over probes: trace of the per-token Fisher diagonal of the weight.
    fisher_rows
        float64 ``[rows]``: sum over ``t`` of ``g_t^2``, mean over probes.
    input_amax
        Largest ``|x|``.
    grams
        What solvers take, ``None`` where it was not wanted. One input Gram for all Linears that share their input.
    """

    tokens: int
    fisher_trace: float
    fisher_rows: torch.Tensor
    input_amax: float
    grams: Grams | None = None

    def __repr__(self) -> str:
        return f"LinearStatistics({self.tokens} tokens, trace {self.fisher_trace:.4g}, amax {self.input_amax:.4g})"


def collect(visits: Iterable[Visit], *, grams: bool) -> dict[str, LinearStatistics]:
    """Linear name -> sums over ``visits``, which are of one layer.

    Parameters
    ----------
    grams
        Whether the Grams are wanted, that of the output gradients whole up to 4096 rows, else in blocks of 128.
    """
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
                inputs.setdefault(name, _InputSums(grams)).add(seen.input, seen.all_inputs)
            gradients.setdefault(name, _GradientSums(grams)).add(seen, inputs[leader].squares)
    return {name: sums.finish(inputs[leaders[name]]) for name, sums in gradients.items()}


class _InputSums:
    def __init__(self, with_gram: bool) -> None:
        self.tokens = self.gram_tokens = 0
        self.amax = 0.0
        self.gram: torch.Tensor | None = None
        self._with_gram = with_gram
        self.squares = torch.zeros(())  # |x_t|^2 of the batch that was added last

    def add(self, x: torch.Tensor, all_inputs: torch.Tensor | None = None) -> None:
        self.tokens += len(x)
        self.squares = x.square().sum(dim=1)
        summed = x if all_inputs is None else all_inputs
        self.gram_tokens += len(summed)
        if len(summed):  # no token may have chosen an expert
            self.amax = max(self.amax, float(summed.abs().max()))
        if self._with_gram:
            if self.gram is None:
                self.gram = x.new_zeros(x.shape[1], x.shape[1])
            self.gram.addmm_(summed.T, summed)


class _GradientSums:
    def __init__(self, with_gram: bool) -> None:
        self.gram = _BlockGram() if with_gram else None
        self.trace = 0.0
        self.rows = torch.zeros((), dtype=torch.float64)

    def add(self, seen: Observation, input_squares: torch.Tensor) -> None:
        squares = seen.gradients.square().mean(dim=0)  # [tokens, rows]
        # Per token: the square of a sum over tokens would be another matrix, dominated by their cross terms.
        self.trace += float(squares.sum(dim=1).double() @ input_squares.double())
        self.rows = self.rows + squares.sum(dim=0).double().cpu()
        if self.gram is not None:
            self.gram.add(seen.gradients.flatten(0, 1))

    def finish(self, inputs: _InputSums) -> LinearStatistics:
        grams = None
        if self.gram is not None and inputs.gram is not None:
            grams = Grams(inputs.gram.cpu(), inputs.gram_tokens, self.gram.blocks().cpu(), self.gram.vectors)
        return LinearStatistics(inputs.tokens, self.trace, self.rows, inputs.amax, grams)


class _BlockGram:
    """Diagonal blocks of the Gram of vectors ``[n, rows]``."""

    def __init__(self) -> None:
        self.vectors = 0
        self._rows = 0
        self._sums = torch.zeros(())

    def add(self, vectors: torch.Tensor) -> None:
        self._rows = vectors.shape[1]
        block = self._rows if self._rows <= WHOLE_ROWS else BLOCK_ROWS
        padded = torch.nn.functional.pad(vectors, (0, -self._rows % block))
        parts = padded.view(len(vectors), padded.shape[1] // block, block).transpose(0, 1)  # [blocks, n, block]
        if self._sums.ndim == 0:
            self._sums = vectors.new_zeros(len(parts), block, block)
        self._sums.baddbmm_(parts.mT, parts)
        self.vectors += len(vectors)

    def blocks(self) -> torch.Tensor:
        """``[rows, b]``, one below the other."""
        return self._sums.flatten(0, 1)[: self._rows]
