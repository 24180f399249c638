"""KL divergence of a model with other weights, window by window, and ratios of two with paired intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from network import Network

from prismaquant.evaluation.metrics import kl_divergence

__all__ = ["Evaluation", "ratio_interval"]

_BATCH = 8  # windows


class Evaluation:
    """The logits of the source model over ``ids`` ``[windows, seq_len]``, kept."""

    def __init__(self, network: Network, ids: torch.Tensor) -> None:
        self._network = network
        self._parts = ids.split(_BATCH)
        with torch.no_grad():
            self._source = [network.logits(part) for part in self._parts]

    @torch.no_grad()
    def kl(
        self,
        weights: dict[str, torch.Tensor],
        inputs: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] | None = None,
    ) -> npt.NDArray[np.float64]:
        """``[windows]``: mean over tokens of KL(source || quantized) in nats.

        Parameters
        ----------
        weights
            By name, in place of the source's.
        inputs
            By name of a Linear: what its inputs go through.
        """
        with _replaced(self._network, weights), _changed_inputs(self._network, inputs or {}):
            pairs = zip(self._parts, self._source, strict=True)
            kl = [kl_divergence(source, self._network.logits(part)).double().mean(-1) for part, source in pairs]
        return torch.cat(kl).numpy()


@contextmanager
def _replaced(network: Network, weights: dict[str, torch.Tensor]) -> Iterator[None]:
    before = {name: network.weight(name).clone() for name in weights}
    for name, weight in weights.items():
        network.weight(name).copy_(weight)
    try:
        yield
    finally:
        for name, weight in before.items():
            network.weight(name).copy_(weight)


@contextmanager
def _changed_inputs(network: Network, inputs: Mapping[str, Callable[[torch.Tensor], torch.Tensor]]) -> Iterator[None]:
    def hook(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., tuple[torch.Tensor]]:
        return lambda _, args: (change(args[0]),)

    handles = [network.model.get_submodule(n).register_forward_pre_hook(hook(c)) for n, c in inputs.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def ratio_interval(
    values: npt.NDArray[np.float64], reference: npt.NDArray[np.float64], resamples: int = 2000
) -> tuple[float, float, float]:
    """Ratio of the means of two ``[windows]``, with its 95 % bootstrap interval: the same windows drawn for both."""
    drawn = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    low, high = np.quantile(values[drawn].mean(1) / reference[drawn].mean(1), [0.025, 0.975])
    return float(values.mean() / reference.mean()), float(low), float(high)
