"""Statistics that solvers take, as the compiled core takes them: float32, on the CPU."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from prismaquant.errors import ArgumentError, ShapeError

if TYPE_CHECKING:
    from prismaquant.types import Array, Tensor

__all__ = ["count_of", "float32_tensor", "importance_matrix"]

_CONVERTED = ("float64", "float16", "bfloat16")


def float32_tensor(tensor: Tensor | None, name: str) -> Tensor | None:
    """``tensor`` itself where it is float32, else converted.

    Raises
    ------
    TypeError
        It has no dtype, or not that of a floating-point number.
    """
    if tensor is None:
        return None
    dtype = str(getattr(tensor, "dtype", None)).removeprefix("torch.")
    if dtype == "float32":
        return tensor
    if dtype not in _CONVERTED:
        got = type(tensor).__name__ if dtype == "None" else f"dtype {dtype}"
        raise TypeError(f"{name}: expected a tensor of float32, {', '.join(_CONVERTED)}, got {got}")
    return tensor.astype("float32") if hasattr(tensor, "astype") else tensor.float()


def count_of(count: int | None, name: str, of: str, given: Tensor | None, *, required: bool = True) -> int:
    """The argument ``name``, which says how many vectors ``of`` sums; 0 if there is none.

    Raises
    ------
    ArgumentError
        It is missing although ``of`` was given, or is negative.
    """
    if count is None:
        if given is not None and required:
            raise ArgumentError(
                f"{name}: is missing, and {of} was given", hint=f"say how many vectors were summed: {name}=len(x)"
            )
        return 0
    number = operator.index(count)
    if number < 0:
        raise ArgumentError(f"{name}: {number}, expected 0 or more")
    return number


def importance_matrix(importance: Any, shape: tuple[int, ...]) -> Array:
    """The argument ``importance`` as float32 of the ``shape`` of the weight: broadcast, not copied.

    Raises
    ------
    ShapeError
        It cannot be broadcast.
    TypeError
        As `float32_tensor`.
    """
    import numpy as np

    array: Array = np.asarray(float32_tensor(importance, "importance"))
    if array.shape not in (shape, shape[-1:], (1, *shape[-1:])):
        raise ShapeError(f"importance: shape {array.shape}, expected {shape[-1:]} or {shape}")
    return np.broadcast_to(array, shape)
