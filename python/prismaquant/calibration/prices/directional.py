"""`directional`: the Fisher matrix of the whole unit, by its projections on sampled gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from prismaquant.calibration.prices.price import LinearErrors, Price, per_window

__all__ = ["Directional", "DirectionalSequence"]


class Directional(Price):
    """``1/2 * mean over probes of <g, dy>^2`` per token, the product summed over the Linears of the unit.

    ``g`` is the gradient of a residual ``r`` with ``E[r r^T]`` the Hessian of the KL divergence in the logits, so that
    the mean square of ``<g, dy>`` is the second-order divergence that ``dy`` makes: nothing is taken as independent.
    Errors of different tokens are.
    """

    def __init__(self) -> None:
        self._parts: list[torch.Tensor] = []

    def add(self, linears: Sequence[LinearErrors], tokens: int, windows: int) -> None:
        self._parts.append(0.5 * per_window(_products(linears, tokens).square().mean(dim=1), windows).T)

    def finish(self) -> torch.Tensor:
        return torch.cat(self._parts, dim=1)


class DirectionalSequence(Price):
    """As `Directional`, squared after the sum over the tokens of a window: sees their errors cancel or add up."""

    def __init__(self) -> None:
        self._parts: list[torch.Tensor] = []

    def add(self, linears: Sequence[LinearErrors], tokens: int, windows: int) -> None:
        sums = per_window(_products(linears, tokens), windows)  # [windows, probes, schemes]
        self._parts.append(0.5 * sums.square().mean(dim=1).T)

    def finish(self) -> torch.Tensor:
        return torch.cat(self._parts, dim=1)


def _products(linears: Sequence[LinearErrors], tokens: int) -> torch.Tensor:
    """``<g, dy>`` of each token: float32 ``[tokens, probes, schemes]``."""
    total: torch.Tensor | float = 0.0
    for linear in linears:
        # One small product per token: the gradients, the largest array here, are read once for all schemes.
        products = linear.seen.gradients.transpose(0, 1) @ linear.outputs.permute(1, 2, 0)
        total = total + linear.of_batch(products, tokens)
    assert isinstance(total, torch.Tensor)
    return total
