"""Prices: the expected KL divergence, in nats per token, of storing one Linear with an error in its weight.

Both are second-order: half the error's square in the Fisher matrix of the weight, each with its own stand-in for that
matrix. The prices of the Linears of a unit add up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

from prismaquant.calibration.collect import LinearStatistics

__all__ = ["PRICES", "fisher_gram", "fisher_trace"]

Price: TypeAlias = Callable[[torch.Tensor, LinearStatistics], float]


def fisher_trace(delta: torch.Tensor, statistics: LinearStatistics) -> float:
    """``1/2 * H_trace * MSE``: the Fisher matrix as a multiple of the identity (sees the size of the error only).

    Parameters
    ----------
    delta
        float32 ``[rows, columns]``: stored weight minus source weight.
    statistics
        Sums of the Linear; ``H_trace`` is the Fisher trace per token.
    """
    mean_square = float(delta.square().sum(dim=1).double().sum()) / delta.numel()
    return 0.5 * statistics.fisher_trace / statistics.tokens * mean_square


def fisher_gram(delta: torch.Tensor, statistics: LinearStatistics) -> float:
    """``1/2 * sum_o f_o delta_o H delta_o^T``: the Kronecker product of a diagonal over rows and the input Gram.

    ``f_o`` is the mean squared output gradient of row ``o`` and ``H = X^T X / tokens``: sees which rows matter and the
    direction of the error (cf. K-FAC, Martens and Grosse 2015, with a diagonal left factor).

    Parameters
    ----------
    delta
        float32 ``[rows, columns]``: stored weight minus source weight.
    statistics
        Sums of the Linear.
    """
    per_row = ((delta @ statistics.gram) * delta).sum(dim=1).double().clamp_(min=0)  # rounding may fall below zero
    return 0.5 * float(statistics.fisher_rows @ per_row) / statistics.tokens**2


#: Every price, by the name that `plan` takes.
PRICES: dict[str, Price] = {"fisher-trace": fisher_trace, "fisher-gram": fisher_gram}
