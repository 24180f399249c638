"""`kfac`: the Fisher matrix of the outputs as the Gram of their gradients."""

from __future__ import annotations

import torch

from prismaquant.calibration.prices.price import Price, UnitErrors
from prismaquant.errors import ArgumentError

__all__ = ["Kfac"]


class Kfac(Price):
    """``1/2 * dy^T G dy`` per Linear and token: ``G`` the mean of ``g g^T``, or of its diagonal blocks.

    Takes output errors and gradients as independent (K-FAC, Martens and Grosse 2015). ``G`` is that of the windows that
    the solvers saw.
    """

    def __init__(self) -> None:
        self._parts: list[torch.Tensor] = []

    def add(self, unit: UnitErrors) -> None:
        total: torch.Tensor | float = 0.0
        for linear in unit.linears:
            grams = None if linear.statistics is None else linear.statistics.grams
            if grams is None:
                raise ArgumentError("price kfac needs the Grams of the output gradients")
            gram = torch.as_tensor(grams.output_gram).to(linear.outputs)
            size = gram.shape[1]
            quadratic: torch.Tensor | float = 0.0
            for first in range(0, len(gram), size):
                block = gram[first : first + size, : len(gram) - first]
                part = linear.outputs[:, :, first : first + size]
                quadratic = quadratic + ((part @ block) * part).sum(dim=2)
            assert isinstance(quadratic, torch.Tensor)
            total = total + 0.5 * unit.per_window(quadratic.T / max(1, grams.output_tokens), linear).T
        assert isinstance(total, torch.Tensor)
        self._parts.append(total)

    def finish(self) -> torch.Tensor:
        return torch.cat(self._parts, dim=1)
