"""`input_global_scale`: the divisor of inputs that a scheme quantizes with a static range."""

from __future__ import annotations

import numpy as np

from prismaquant.errors import NumericError

__all__ = ["input_global_scale"]


def input_global_scale(input_amax: float | None, load: float = 1.0) -> float:
    """``float32(load * 448 * 6 / input_amax)``, the divisor for NVFP4 activations; 1 for inputs that were always zero.

    Parameters
    ----------
    input_amax
        Largest absolute input.
    load
        What it becomes, over the largest that NVFP4 can hold: below 1 there is room for larger ones.

    Raises
    ------
    NumericError
        If ``input_amax`` is missing, negative or not finite.
    """
    if input_amax is None or not np.isfinite(input_amax) or input_amax < 0:
        raise NumericError(f"the largest absolute input is {input_amax}", hint="probe the model again")
    with np.errstate(divide="ignore", over="ignore"):
        scale = np.float32(load * 448.0 * 6.0) / np.float32(input_amax)
    return float(scale) if np.isfinite(scale) else 1.0
