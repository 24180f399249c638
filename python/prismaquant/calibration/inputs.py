"""Quantized inputs: what a scheme does to them, and the static range of those that have one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from prismaquant.calibration.collect import LinearStatistics
from prismaquant.codec import get_codec
from prismaquant.rendering.input_scale import input_global_scale
from prismaquant.streaming.caches import round_to_fp8

if TYPE_CHECKING:
    from prismaquant.model import Unit
    from prismaquant.streaming import Visit

__all__ = ["choose_input_global_scales", "quantize_input"]

#: By `Scheme.activations`, static FP8 aside: format of the values of quantized inputs, and columns that one row has.
_FORMATS: dict[str, tuple[str, int | None]] = {
    "nvfp4": ("nvfp4", None),
    "mxfp4": ("mxfp4", None),
    "mxfp8": ("mxfp8_e4m3", None),
    "fp8_token": ("fp8_e4m3_token", None),
    "fp8_group": ("fp8_e4m3_token", 128),
    "int8_token": ("int8_token", None),
}

#: What the largest input of the calibration becomes, over the largest that NVFP4 can hold: below 1 there is room for
#: larger ones, above 1 the largest are clipped.
_LOADS = (0.5, 0.75, 1.0, 1.5, 2.0)


def quantize_input(
    x: torch.Tensor, activations: str, static_scale: float | None, threads: int | None = None
) -> torch.Tensor:
    """``x [tokens, columns]`` as the engine sees it: float32, rounded to the values that the kernels compute with.

    Parameters
    ----------
    activations
        As in `Scheme.activations`.
    static_scale
        As `prismaquant.rendering.input_scale.static_scale` gives it.
    """
    if activations == "fp8_static":
        assert static_scale is not None
        return round_to_fp8(x, static_scale)
    format, group = _FORMATS[activations]
    rows = x.cpu() if group is None else x.cpu().reshape(-1, group)
    rounded: torch.Tensor = get_codec(format).roundtrip(
        rows, scale_rule="amax", global_scale=static_scale, threads=threads
    )
    return rounded.view(x.shape).to(x.device)


def choose_input_global_scales(
    units: Iterable[Unit],
    visits: Iterable[Visit],
    statistics: Mapping[str, LinearStatistics],
    threads: int | None = None,
) -> dict[str, float]:
    """Unit name -> divisor of its NVFP4 inputs: of a few, the one with the smallest error of the outputs.

    The error is weighted by the mean squared gradient of each row. Without ``visits`` the largest input of the
    statistics becomes the largest that NVFP4 can hold; inputs that were always zero get 1.

    Parameters
    ----------
    visits
        One layer on windows that are not those of ``statistics``, whose largest input would always fit.
    """
    units = list(units)
    amax = {unit.name: max(statistics[linear.name].input_amax for linear in unit.linears) for unit in units}
    errors = {unit.name: [0.0] * len(_LOADS) for unit in units}
    for visit in visits:
        for unit in units:
            if amax[unit.name] == 0 or unit.linears[0].name not in visit.linears:  # a sample may not reach a tower
                continue
            for index, load in enumerate(_LOADS):
                errors[unit.name][index] += _error(
                    unit, visit, statistics, input_global_scale(amax[unit.name], load), threads
                )
    chosen = {}
    for name, of_unit in errors.items():
        load = _LOADS[of_unit.index(min(of_unit))] if any(of_unit) else 1.0
        chosen[name] = input_global_scale(amax[name], load)
    return chosen


def _error(
    unit: Unit, visit: Visit, statistics: Mapping[str, LinearStatistics], scale: float, threads: int | None
) -> float:
    total = 0.0
    rounded: dict[int, torch.Tensor] = {}
    for linear in unit.linears:
        seen = visit.linears[linear.name]
        if not len(seen.input):
            continue
        if id(seen.input) not in rounded:
            rounded[id(seen.input)] = quantize_input(seen.input, "nvfp4", scale, threads) - seen.input
        squares = (rounded[id(seen.input)] @ seen.weight.T).square().sum(dim=0, dtype=torch.float64)
        total += float(squares.cpu() @ statistics[linear.name].fisher_rows)
    return total
