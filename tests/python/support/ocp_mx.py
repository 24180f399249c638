"""Conversion to MX formats as the text of OCP Microscaling Formats v1.0 puts it (section 6.3), in float64 numpy.

The shared exponent is that of the largest magnitude minus that of the largest element; elements are rounded to nearest
with ties to even, and saturate. (The reference emulation, microxcaling, does the same with its default rounding.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prismaquant.types import Array
from support.numpy_twin import nearest, values


def _without_specials(grid: Array, largest: float) -> Array:
    half = grid[: len(grid) // 2]
    half = half[half <= largest]
    return np.concatenate([half, -half])


#: Format -> values of the codes, sign in the highest bit.
GRIDS = {
    "mxfp4": values(2, 1),
    "mxfp6_e2m3": values(2, 3),
    "mxfp6_e3m2": values(3, 2),
    "mxfp8_e4m3": _without_specials(values(4, 3), 448.0),
    "mxfp8_e5m2": _without_specials(values(5, 2), 57344.0),
    "mxint8": np.concatenate([np.arange(128), -np.arange(128)]) / 64,
}


@dataclass(frozen=True)
class Converted:
    exponents: Array  #: ``[rows, blocks]``: of the shared scale
    decoded: Array  #: ``[rows, columns]``, float64


def convert(weight: Array, format: str) -> Converted:
    """``weight`` ``[rows, columns]``, columns a multiple of 32, no block of zeros."""
    grid = GRIDS[format]
    blocks = weight.astype(np.float64).reshape(weight.shape[0], -1, 32)
    largest_exponent = np.frexp(grid.max())[1] - 1
    exponents = np.frexp(np.abs(blocks).max(axis=-1))[1] - 1 - largest_exponent
    scales = np.ldexp(1.0, exponents)[..., None]
    rounded = grid[nearest(blocks / scales, grid)] * scales
    return Converted(exponents, rounded.reshape(weight.shape))
