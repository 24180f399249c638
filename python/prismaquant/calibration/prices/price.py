"""`Price`, and `LinearErrors`: what a price sees of one Linear on one batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from prismaquant.calibration.collect import LinearStatistics
from prismaquant.streaming import Observation

__all__ = ["LinearErrors", "Price", "per_window"]


@dataclass(frozen=True, slots=True)
class LinearErrors:
    """Output errors of one Linear, of several schemes.

    Attributes
    ----------
    seen
        Inputs and output gradients of the batch.
    outputs
        float32 ``[schemes, tokens, rows]``: the output under the scheme, quantized inputs included, minus the
        original's.
    weight_mse
        float64 ``[schemes]``: mean squared error of the stored weight.
    statistics
        Sums of the Linear over other windows.
    """

    seen: Observation
    outputs: torch.Tensor
    weight_mse: torch.Tensor
    statistics: LinearStatistics

    def __repr__(self) -> str:
        return f"LinearErrors({' x '.join(map(str, self.outputs.shape))})"

    def of_batch(self, values: torch.Tensor, tokens: int) -> torch.Tensor:
        """``values [n, ...]`` of the tokens that were seen, as ``[tokens, ...]`` of the batch: zero for the others."""
        if self.seen.positions is None:
            return values
        return values.new_zeros(tokens, *values.shape[1:]).index_add_(0, self.seen.positions, values)


class Price(ABC):
    """One price of one unit, for several schemes at once."""

    @abstractmethod
    def add(self, linears: Sequence[LinearErrors], tokens: int, windows: int) -> None:
        """Take in the Linears of the unit on one batch: ``windows`` windows, ``tokens`` tokens together."""

    @abstractmethod
    def finish(self) -> torch.Tensor:
        """float64 ``[schemes, windows]``: nats, summed over the tokens of each window that was added, in order."""


def per_window(values: torch.Tensor, windows: int) -> torch.Tensor:
    """``values [tokens, ...]`` summed over the tokens of each window: float64 ``[windows, ...]``."""
    return values.view(windows, -1, *values.shape[1:]).sum(dim=1, dtype=torch.float64).cpu()
