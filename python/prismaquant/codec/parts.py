"""The arrays of a `Quantized`: made, checked, and split into those of its matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from prismaquant.codec.arguments import numpy_dtype
from prismaquant.codec.batch import Batch, Index, Matrices, batch_of
from prismaquant.errors import FormatError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prismaquant.codec.quantized import Quantized
    from prismaquant.types import Array, Tensor

__all__ = ["PARTS", "copy_given", "empty_like", "new_arrays", "own_batch", "stored_matrix"]

#: Fields of `Quantized` that hold arrays, in the order in which the compiled core takes them.
PARTS = ("codes", "scales", "extra")


def new_arrays(format: str, batch: Batch, out: Quantized | None) -> dict[str, Array]:
    """Arrays for the parts that ``format`` stores, by name: those of ``out``, or new ones."""
    from prismaquant import _core

    if out is not None:
        _require_quantized(out, "out")
        made_for, wanted = (out.format, out.shape, out.axis), (format, batch.shape, batch.axis)
        if made_for != wanted:
            raise ShapeError(
                "out: was made for format {}, shape {}, axis {}; this is {}, {}, {}".format(*made_for, *wanted)
            )
        own_batch(out, format, "out")
        return {name: part for name in PARTS if (part := getattr(out, name)) is not None}
    parts = _core.storage(format, batch.rows, batch.columns)
    return {name: np.empty((*batch.outer, *shape), dtype) for name, (dtype, shape) in parts.items()}


def copy_given(given: Mapping[str, Any], parts: Mapping[str, Array]) -> None:
    """Copy scales and extra words that the caller gives to where they will be stored."""
    for name in parts.keys() - {"codes"}:
        part, own = given[name], parts[name]
        if part is None:
            raise ShapeError(f"{name}: None was given, expected {own.dtype} {own.shape}")
        part = np.asarray(part)
        if part.dtype != own.dtype or part.shape != own.shape:
            raise ShapeError(f"{name}: {part.dtype} {part.shape} was given, expected {own.dtype} {own.shape}")
        own[...] = part


def own_batch(quantized: Quantized, format: str, name: str = "quantized") -> Batch:
    """How ``quantized``, which must be in ``format``, splits into matrices; batches must lead all of its arrays."""
    _require_quantized(quantized, name)
    if quantized.format != format:
        raise FormatError(f"{name}: is in format {quantized.format}, this codec is for {format}")
    batch = batch_of(quantized.shape, quantized.axis, f"{name}.shape")
    for part in PARTS if batch.outer else ():
        array = getattr(quantized, part)
        if array is not None and array.shape[:-2] != batch.outer:
            raise ShapeError(f"{part}: shape {array.shape}, expected {(*batch.outer, '...', '...')}")
    return batch


def stored_matrix(quantized: Quantized, batch: Batch, index: Index) -> tuple[Any, Any, Any, float]:
    """Codes, scales, extra words and divisor of the matrix at ``index``."""
    codes, scales, extra = (
        part[index] if index and part is not None else part
        for part in (quantized.codes, quantized.scales, quantized.extra)
    )
    divisor = batch.global_scale(quantized.global_scale, index)
    return codes, scales, extra, 1.0 if divisor is None else divisor


def empty_like(weight: Tensor, tensor: Matrices) -> Tensor:
    """A new tensor of the shape and dtype of ``weight``: of its own kind for torch, else of numpy."""
    if hasattr(weight, "new_empty"):
        return weight.new_empty(tensor.batch.shape)
    return np.empty(tensor.batch.shape, numpy_dtype(tensor.dtype))


def _require_quantized(thing: object, name: str) -> None:
    if not hasattr(thing, "codes"):
        raise TypeError(f"{name}: expected a Quantized, got {type(thing).__name__}")
