"""`fisher-gram`: the Fisher matrix of the outputs as a diagonal."""

from __future__ import annotations

import torch

from prismaquant.calibration.prices.price import Price, UnitErrors

__all__ = ["FisherGram"]


class FisherGram(Price):
    """``1/2 * sum_o f_o |dy_o|^2`` per Linear: ``f_o`` the mean squared output gradient of row ``o``, ``dy`` the error.

    With exact inputs this is ``1/2 * sum_o f_o dW_o H dW_o^T``, half the objective of a solver that knows the diagonal
    of the output Gram (cf. K-FAC, Martens and Grosse 2015, with a diagonal left factor).
    """

    def __init__(self) -> None:
        self._tokens: list[int] = []  # by Linear: an expert sees some
        self._rows: list[torch.Tensor] = []  # by Linear: float64 [rows], sum of squared gradients
        self._errors: list[list[torch.Tensor]] = []  # by batch, by Linear: float64 [windows, schemes, rows]

    def add(self, unit: UnitErrors) -> None:
        tokens = [len(x.seen.input) for x in unit.linears]
        self._tokens = [old + new for old, new in zip(self._tokens, tokens, strict=True)] if self._tokens else tokens
        rows = [x.seen.gradients.square().mean(dim=0).sum(dim=0, dtype=torch.float64).cpu() for x in unit.linears]
        self._rows = [old + new for old, new in zip(self._rows, rows, strict=True)] if self._rows else rows
        self._errors.append([unit.per_window(x.outputs.square().transpose(0, 1), x) for x in unit.linears])

    def finish(self) -> torch.Tensor:
        """As `Price.finish`. ``f`` is that of all windows, so that the windows' sums add up to the whole formula."""
        parts = []
        for batch in self._errors:
            of_linears = zip(batch, self._rows, self._tokens, strict=True)
            weighted = [error @ rows / max(1, tokens) for error, rows, tokens in of_linears]
            parts.append(0.5 * torch.stack(weighted).sum(dim=0).T)
        return torch.cat(parts, dim=1)
