"""A tensor as a batch of matrices, without a copy.

The axis along which groups run is moved to the end; of the others the last one is the rows, those before are the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prismaquant.errors import ArgumentError, ShapeError

if TYPE_CHECKING:
    from prismaquant._core import TensorView
    from prismaquant.types import Array, Tensor

__all__ = ["Batch", "Index", "Matrices", "batch_of", "importance_of"]

Index = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """How a tensor of ``shape`` splits into matrices ``[rows, columns]`` with ``axis`` (negative) as their columns."""

    shape: tuple[int, ...]
    axis: int
    outer: tuple[int, ...]
    rows: int
    columns: int

    def __iter__(self) -> Iterator[Index]:
        """The index of every matrix; ``()`` for a tensor of two axes."""
        import numpy as np

        return iter(np.ndindex(*self.outer))

    @property
    def position(self) -> int:
        """The axis, counted from the front."""
        return len(self.shape) + self.axis

    @contextmanager
    def place(self, index: Index) -> Iterator[None]:
        """Errors from inside say which matrix they are about, and what its rows and columns are."""
        try:
            yield
        except ArgumentError as error:
            which = [f"in matrix {list(index)} of the batch {list(self.outer)}"] if index else []
            moved = [f"where axis {self.axis} is the columns"] if self.axis != -1 else []
            if error.hint is None and which + moved:
                error.hint = ", ".join(which + moved)
            raise

    def global_scale(self, given: float | Array | None, index: Index) -> float | None:
        """That of the matrix at ``index``: ``given`` for all, or an array with one for each."""
        import numpy as np

        if given is None or np.ndim(given) == 0:
            return None if given is None else float(given)
        if np.shape(given) != self.outer:
            raise ShapeError(
                f"global_scale: shape {np.shape(given)}, expected one number"
                + (f", or {self.outer}: one for each matrix of the batch" if self.outer else "")
            )
        return float(np.asarray(given)[index])


class Matrices:
    """A borrowed tensor of the argument ``name``, which may have to have a ``shape``, and the views of its matrices."""

    def __init__(self, tensor: Tensor, name: str, axis: int = -1, shape: tuple[int, ...] | None = None) -> None:
        from prismaquant import _core

        view = _core.TensorView(tensor, name)
        if shape is not None and view.shape != shape:
            raise ShapeError(f"{name}: shape {view.shape}, expected {shape}")
        self.dtype: str = view.dtype
        self.batch = batch_of(view.shape, axis, name)
        self._moved = view.with_last(self.batch.position)

    def at(self, index: Index) -> TensorView:
        """The matrix at ``index``, for the compiled core."""
        return self._moved.at(index)


def batch_of(shape: Sequence[int], axis: int, name: str) -> Batch:
    """How the tensor called ``name`` splits.

    Raises
    ------
    ShapeError
        Fewer than two axes, or ``axis`` is none of them.
    """
    shape = tuple(shape)
    if len(shape) < 2:
        hint = "one row is weight[None]" if len(shape) == 1 else None
        raise ShapeError(f"{name}: expected at least 2 axes (rows, columns), got shape {shape}", hint=hint)
    if not -len(shape) <= axis < len(shape):
        raise ShapeError(f"axis: {axis} is none of shape {shape}, expected {-len(shape)} to {len(shape) - 1}")
    axis = axis if axis < 0 else axis - len(shape)
    others = shape[: len(shape) + axis] + shape[len(shape) + axis + 1 :]
    return Batch(shape, axis, others[:-1], others[-1], shape[axis])


def importance_of(weights: Any, batch: Batch) -> Array | None:
    """The argument ``weights`` as float32 ``[*outer, rows, columns]``: broadcast, not copied.

    Raises
    ------
    ShapeError
        It has not one number for each place along the axis, and cannot be broadcast to the shape of the tensor.
    TypeError
        It is no array of numbers.
    """
    if weights is None:
        return None
    import numpy as np

    try:
        array = np.asarray(weights, np.float32)
    except (TypeError, ValueError, RuntimeError) as cause:  # torch raises the last two
        raise TypeError(f"weights: expected real numbers as an array, got {type(weights).__name__} ({cause})") from None
    if array.shape == (batch.columns,):
        return np.broadcast_to(array, (*batch.outer, batch.rows, batch.columns))
    fits = array.ndim == len(batch.shape) and all(
        own in (1, wanted) for own, wanted in zip(array.shape, batch.shape, strict=True)
    )
    if not fits:
        raise ShapeError(f"weights: shape {array.shape}, expected ({batch.columns},) or {batch.shape}")
    return np.moveaxis(np.broadcast_to(array, batch.shape), batch.axis, -1)
