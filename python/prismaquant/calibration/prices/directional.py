"""`directional`: the Fisher matrix of the whole unit, by its projections on sampled gradients."""

from __future__ import annotations

import torch

from prismaquant.calibration.prices.price import Price, UnitErrors

__all__ = ["Directional", "DirectionalSequence"]


class Directional(Price):
    """``1/2 * mean over probes of <g, dy>^2`` per token, the product summed over the Linears of the unit.

    ``g`` is the gradient of a residual ``r`` with ``E[r r^T]`` the Hessian of the KL divergence in the logits, so that
    the mean square of ``<g, dy>`` is the second-order divergence that ``dy`` makes: nothing is taken as independent.
    Errors of different tokens are.
    """

    def __init__(self) -> None:
        self._parts: list[torch.Tensor] = []

    def add(self, unit: UnitErrors) -> None:
        self._parts.append(0.5 * unit.per_window(unit.products.square().mean(dim=1)).T)

    def finish(self) -> torch.Tensor:
        return torch.cat(self._parts, dim=1)


class DirectionalSequence(Price):
    """As `Directional`, squared after the sum over the tokens of a window: sees their errors cancel or add up."""

    def __init__(self) -> None:
        self._parts: list[torch.Tensor] = []

    def add(self, unit: UnitErrors) -> None:
        sums = unit.per_window(unit.products)  # [windows, probes, schemes]
        self._parts.append(0.5 * sums.square().mean(dim=1).T)

    def finish(self) -> torch.Tensor:
        return torch.cat(self._parts, dim=1)
