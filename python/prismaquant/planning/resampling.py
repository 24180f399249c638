"""Prices as they would be on other windows: the bootstrap over the sequences that set them.

Windows are drawn with replacement, the same ones for all units, whose prices go up and down together (Efron 1979);
samples for the units of towers likewise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prismaquant.files.sensitivity import price_sums_name

if TYPE_CHECKING:
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.planning.candidates import UnitOptions
    from prismaquant.types import Array

__all__ = ["RESAMPLES", "resampled_items"]

#: Enough for an interval of 95 %.
RESAMPLES = 200


def resampled_items(
    sensitivity: Sensitivity, units: Sequence[UnitOptions], price: str, *, resamples: int = RESAMPLES, seed: int = 0
) -> Iterator[list[list[tuple[int, float]]]]:
    """For each resample, the options of every unit as ``(bytes, price)``; none if no sums per window were kept."""
    import numpy as np

    measured = {unit.name: unit for unit in sensitivity.units}
    draws: dict[bool, Array] = {}  # of the windows, and of the samples for towers
    resampled: list[Array] = []  # of each unit: [options, resamples]
    for entry in units:
        if entry.unit.name not in measured:  # pinned outside of the layers
            resampled.append(np.zeros((len(entry.options), resamples)))
            continue
        sums = sensitivity.price_sums.get(price_sums_name(entry.unit.name, price))
        if sums is None or sums.shape[1] < 2:
            return
        unit = measured[entry.unit.name]
        if unit.tower not in draws:
            windows = sums.shape[1]
            draws[unit.tower] = np.random.default_rng(seed).multinomial(windows, [1 / windows] * windows, resamples).T
        schemes = [candidate.scheme for candidate in unit.candidates]
        rows = [schemes.index(option.scheme) if option.scheme in schemes else -1 for option in entry.options]
        known = np.vstack([sums.astype(np.float64), np.zeros(sums.shape[1])])  # the weight itself costs nothing
        resampled.append(np.maximum(known[rows] @ draws[unit.tower], 0) / sensitivity.tokens_priced(unit.tower))
    sizes = [[option.bytes for option in entry.options] for entry in units]
    for number in range(resamples):
        yield [
            list(zip(of_unit, values[:, number].tolist(), strict=True))
            for of_unit, values in zip(sizes, resampled, strict=True)
        ]
