"""`fisher-trace`: the Fisher matrix of the weight as a multiple of the identity."""

from __future__ import annotations

import torch

from prismaquant.calibration.prices.price import Price, UnitErrors

__all__ = ["FisherTrace"]


class FisherTrace(Price):
    """``1/2 * H_trace * MSE`` per Linear, with ``H_trace`` the sum over tokens of ``|g|^2 |x|^2``.

    Sees the size of the weight's error only: neither its direction nor errors of the inputs.
    """

    needs_outputs = False

    def __init__(self) -> None:
        self._parts: list[torch.Tensor] = []

    def add(self, unit: UnitErrors) -> None:
        total: torch.Tensor | float = 0.0
        for linear in unit.linears:
            seen = linear.seen
            # Per token: the square of a sum over tokens would be another matrix, dominated by their cross terms.
            traces = seen.gradients.square().mean(dim=0).sum(dim=1) * seen.input.square().sum(dim=1)
            total = total + 0.5 * torch.outer(linear.weight_mse, unit.per_window(traces, linear))
        assert isinstance(total, torch.Tensor)
        self._parts.append(total)

    def finish(self) -> torch.Tensor:
        return torch.cat(self._parts, dim=1)
