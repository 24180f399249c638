"""The scales of inputs that a scheme quantizes with a static range."""

from __future__ import annotations

import numpy as np

from prismaquant.errors import NumericError

__all__ = ["input_global_scale", "input_scale", "static_scale"]


def static_scale(
    activations: str | None, input_amax: float | None, chosen_global_scale: float | None = None
) -> float | None:
    """The scale that `Scheme.input_scale` names, of a scheme with ``activations``; ``None`` where it has none.

    Parameters
    ----------
    chosen_global_scale
        What the probe chose for NVFP4; ``None``: that of the full range.

    Raises
    ------
    NumericError
        If ``input_amax`` is needed, and missing, negative or not finite.
    """
    if activations == "nvfp4":
        return input_global_scale(input_amax) if chosen_global_scale is None else chosen_global_scale
    return input_scale(input_amax) if activations == "fp8_static" else None


def input_scale(input_amax: float | None) -> float:
    """``float32(input_amax / 448)``, the multiplier of static FP8 activations; 1 for inputs that were always zero.

    Raises
    ------
    NumericError
        If ``input_amax`` is missing, negative or not finite.
    """
    scale = np.float32(_checked(input_amax)) / np.float32(448.0)
    return float(scale) if scale > 0 else 1.0


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
    with np.errstate(divide="ignore", over="ignore"):
        scale = np.float32(load * 448.0 * 6.0) / np.float32(_checked(input_amax))
    return float(scale) if np.isfinite(scale) else 1.0


def _checked(input_amax: float | None) -> float:
    if input_amax is None or not np.isfinite(input_amax) or input_amax < 0:
        raise NumericError(f"the largest absolute input is {input_amax}", hint="probe the model again")
    return input_amax
