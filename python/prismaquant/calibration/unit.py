"""`UnitPrices`: the prices of one unit under every scheme of the menu, on the bytes that would be written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from prismaquant.calibration.inputs import quantize_input
from prismaquant.calibration.prices import PRICES, LinearErrors, UnitErrors
from prismaquant.codec import get_codec
from prismaquant.files.sensitivity import Candidate
from prismaquant.formats import Scheme, stored_bytes
from prismaquant.rendering.input_scale import static_scale

if TYPE_CHECKING:
    from prismaquant.calibration.collect import LinearStatistics
    from prismaquant.model import Unit
    from prismaquant.rendering.render import Rendering
    from prismaquant.streaming import Observation, Visit
    from prismaquant.types import Array

__all__ = ["UnitPrices"]


class UnitPrices:
    """Sums over visits.

    Parameters
    ----------
    menu
        Schemes that the unit can take.
    renderings
        By weight format.
    input_global_scale
        Divisor of the inputs, for NVFP4.
    prices
        Names of `PRICES`.
    """

    def __init__(
        self,
        unit: Unit,
        menu: Sequence[Scheme],
        renderings: Mapping[str, Rendering],
        statistics: Mapping[str, LinearStatistics],
        *,
        input_global_scale: float | None,
        prices: Sequence[str],
        threads: int | None = None,
    ) -> None:
        self._unit, self._menu, self._renderings, self._statistics = unit, menu, renderings, statistics
        self._input_global_scale, self._threads = input_global_scale, threads
        # A weight that is stored as it is costs exactly nothing while its inputs are left alone.
        self._input_amax = max(
            (statistics[x.name].input_amax for x in unit.linears if x.name in statistics), default=0.0
        )
        self._inexact = [x for x in menu if x.activations or any(renderings[x.weight_format].squared_error.values())]
        self._prices = {name: PRICES[name]() for name in prices}
        self._tokens: list[int] = []  # of each window
        self._reached: list[bool] = []  # whether each window reaches the unit; of a tower not all samples may

    def add(self, visit: Visit) -> None:
        """Take in one batch of the unit's layer."""
        windows, seq_len = visit.batch.ids.shape
        self._tokens += visit.batch.tokens
        is_reached = all(linear.name in visit.linears for linear in self._unit.linears)
        self._reached += [is_reached] * windows
        if self._inexact and is_reached:
            inputs: dict[tuple[int, str], torch.Tensor] = {}
            linears = [self._errors(linear.name, visit, inputs) for linear in self._unit.linears]
            errors = UnitErrors(linears, windows * seq_len, windows, joint=bool(visit.batch.inputs))
            for price in self._prices.values():
                price.add(errors)

    def finish(self) -> tuple[tuple[Candidate, ...], dict[str, Array]]:
        """One candidate for each scheme of the menu, and by price its sums: float32 ``[schemes, windows]``, nats."""
        tokens = np.array(self._tokens)
        sums = {name: np.zeros((len(self._menu), len(tokens))) for name in self._prices}
        places = [self._menu.index(scheme) for scheme in self._inexact]
        for name, price in self._prices.items() if places and any(self._reached) else ():
            sums[name][np.ix_(np.array(places), np.flatnonzero(self._reached))] = price.finish().numpy()
        candidates = tuple(
            Candidate(
                scheme.name,
                sum(stored_bytes(scheme, linear.rows, linear.columns) for linear in self._unit.linears),
                sum(self._renderings[scheme.weight_format].squared_error.values()),
                {name: float(of_price[index].sum() / tokens.sum()) for name, of_price in sums.items()},
            )
            for index, scheme in enumerate(self._menu)
        )
        return candidates, {name: of_price.astype(np.float32) for name, of_price in sums.items()}

    def _errors(self, name: str, visit: Visit, inputs: dict[tuple[int, str], torch.Tensor]) -> LinearErrors:
        seen = visit.linears[name]
        statistics = self._statistics.get(name)
        if not any(price.needs_outputs for price in self._prices.values()):
            return LinearErrors(seen, seen.input.new_empty(0), self._weight_mse(name, seen), statistics)
        errors = seen.input.new_empty(len(self._inexact), len(seen.input), len(seen.weight))
        stored: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}  # format -> decoded weight, error it makes
        for index, scheme in enumerate(self._inexact):
            rendering = self._renderings[scheme.weight_format]
            if scheme.weight_format not in stored:
                codec = get_codec(scheme.weight_format)
                decoded = torch.from_numpy(codec.decode(rendering.quantized[name], threads=self._threads))
                decoded = decoded.to(seen.weight.device)
                stored[scheme.weight_format] = decoded, seen.input @ (decoded - seen.weight).T
            weight, of_weight = stored[scheme.weight_format]
            errors[index] = of_weight
            if scheme.activations is not None and len(seen.input):
                key = id(seen.input), scheme.activations  # fused siblings hold one input
                if key not in inputs:
                    scale = static_scale(scheme.activations, self._input_amax, self._input_global_scale)
                    inputs[key] = quantize_input(seen.input, scheme.activations, scale, self._threads) - seen.input
                errors[index] += inputs[key] @ weight.T
        return LinearErrors(seen, errors, self._weight_mse(name, seen), statistics)

    def _weight_mse(self, name: str, seen: Observation) -> torch.Tensor:
        squared = [self._renderings[scheme.weight_format].squared_error[name] for scheme in self._inexact]
        return torch.tensor(squared, dtype=torch.float64) / seen.weight.numel()
