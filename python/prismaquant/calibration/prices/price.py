"""`Price`, and `UnitErrors`: what a price sees of one unit on one batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from prismaquant.calibration.collect import LinearStatistics
from prismaquant.streaming import Observation

__all__ = ["LinearErrors", "Price", "UnitErrors"]


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
        Sums of the Linear over other windows; ``None`` in a preview, which has no others.
    """

    seen: Observation
    outputs: torch.Tensor
    weight_mse: torch.Tensor
    statistics: LinearStatistics | None

    def __repr__(self) -> str:
        return f"LinearErrors({' x '.join(map(str, self.outputs.shape))})"


@dataclass(frozen=True)
class UnitErrors:
    """Output errors of the Linears of one unit on one batch.

    Attributes
    ----------
    tokens, windows
        Of the batch: ``tokens`` of all ``windows`` together.
    joint
        Whether all tokens act on the same predictions, as the patches of an image do: what their errors do together is
        squared, where that of tokens of text is squared token by token.
    """

    linears: Sequence[LinearErrors]
    tokens: int
    windows: int
    joint: bool = False

    @cached_property
    def products(self) -> torch.Tensor:
        """``<g, dy>`` of each token, summed over the Linears: float32 ``[tokens, probes, schemes]``.

        If joint, summed over the tokens, too: ``[1, probes, schemes]``.
        """
        total: torch.Tensor | float = 0.0
        for linear in self.linears:
            # One small product per token: the gradients, the largest array here, are read once for all schemes.
            products = linear.seen.gradients.transpose(0, 1) @ linear.outputs.permute(1, 2, 0)
            total = total + self._of_batch(linear, products)
        assert isinstance(total, torch.Tensor)
        return total.sum(dim=0, keepdim=True) if self.joint else total

    def per_window(self, values: torch.Tensor, linear: LinearErrors | None = None) -> torch.Tensor:
        """``values [tokens, ...]`` summed over the tokens of each window: float64 ``[windows, ...]``.

        With ``linear`` they are of the tokens that it saw.
        """
        values = values if linear is None else self._of_batch(linear, values)
        return values.view(self.windows, -1, *values.shape[1:]).sum(dim=1, dtype=torch.float64).cpu()

    def _of_batch(self, linear: LinearErrors, values: torch.Tensor) -> torch.Tensor:
        """``values`` of the tokens that ``linear`` saw, as ``[tokens, ...]`` of the batch: zero for the others."""
        if linear.seen.positions is None:
            return values
        return values.new_zeros(self.tokens, *values.shape[1:]).index_add_(0, linear.seen.positions, values)


class Price(ABC):
    """One price of one unit, for several schemes at once."""

    #: Whether it looks at `LinearErrors.outputs`.
    needs_outputs = True

    @abstractmethod
    def add(self, unit: UnitErrors) -> None:
        """Take in one batch."""

    @abstractmethod
    def finish(self) -> torch.Tensor:
        """float64 ``[schemes, windows]``: nats, summed over the tokens of each window that was added, in order."""
