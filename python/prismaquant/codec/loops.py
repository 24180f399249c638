"""The calls of the compiled core: one per matrix of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from prismaquant import _core
from prismaquant.codec.arguments import WEIGHTED_RULES, require_rule, thread_count
from prismaquant.codec.batch import Batch, Index, Matrices, importance_of
from prismaquant.codec.error import ErrorHistogram, ErrorSummary
from prismaquant.codec.parts import own_batch, stored_matrix
from prismaquant.codec.quantized import Quantized
from prismaquant.errors import ArgumentError, NumericError, ShapeError
from prismaquant.formats import FormatInfo

if TYPE_CHECKING:
    from prismaquant.types import Array, Tensor

__all__ = ["Encoding", "decode", "encode", "encoding_errors", "error_histogram", "errors", "roundtrip"]


@dataclass(frozen=True, slots=True)
class Encoding:
    """A tensor to be encoded and how: arguments of `Codec.encode`, checked."""

    info: FormatInfo
    tensor: Matrices
    scale_rule: str
    global_scale: float | Array | None
    importance: Array | None
    saturate: bool
    threads: int

    @classmethod
    def of(
        cls,
        info: FormatInfo,
        weight: Tensor,
        scale_rule: str,
        global_scale: float | Array | None,
        weights: Array | None,
        saturate: bool,
        axis: int,
        threads: int | None,
    ) -> Encoding:
        """Checks the arguments."""
        count = thread_count(threads)
        require_rule(info, _core.list_scale_rules(info.name), scale_rule, global_scale)
        if weights is not None and scale_rule not in WEIGHTED_RULES:
            raise ArgumentError(
                f"weights: the scale rule {scale_rule!r} does not use them; {' and '.join(WEIGHTED_RULES)} do"
            )
        tensor = Matrices(weight, "weight", axis)
        batch = tensor.batch
        if _core.why_not(info.name, batch.columns) is not None and (batch.outer or batch.axis != -1):
            raise ShapeError(  # of a plain matrix the compiled core says it
                f"weight: axis {batch.axis} of shape {batch.shape} is not a multiple of the group size "
                f"{info.block_columns} of {info.name}, whose groups run along it"
            )
        return cls(info, tensor, scale_rule, global_scale, importance_of(weights, batch), saturate, count)

    def scale_at(self, index: Index) -> float | None:
        """The global scale that was given for the matrix at ``index``."""
        return self.tensor.batch.global_scale(self.global_scale, index)

    def importance_at(self, index: Index) -> Array | None:
        """The importance of the elements of the matrix at ``index``."""
        return None if self.importance is None else self.importance[index]


def encode(how: Encoding, parts: Mapping[str, Array]) -> Quantized:
    """Write ``parts`` of every matrix; the whole, which holds them."""
    batch = how.tensor.batch
    used = np.empty(batch.outer, np.float32)
    for index in batch:
        with batch.place(index):
            scale = _core.encode(
                how.tensor.at(index),
                how.info.name,
                how.scale_rule,
                how.scale_at(index),
                how.threads,
                parts["codes"][index],
                parts["scales"][index] if "scales" in parts else None,
                parts["extra"][index] if "extra" in parts else None,
                importance=how.importance_at(index),
                saturate=how.saturate,
            )
        used[index] = np.nan if scale is None else scale
    scales = (used if batch.outer else float(used)) if how.info.has_global_scale else None
    arrays = parts["codes"], parts.get("scales"), scales, parts.get("extra")
    return Quantized(how.info.name, batch.shape, *arrays, axis=batch.axis)


def decode(quantized: Quantized, batch: Batch, out: Matrices, threads: int | None) -> None:
    """Write the values of every matrix."""
    for index in batch:
        with batch.place(index):
            codes, scales, extra, divisor = stored_matrix(quantized, batch, index)
            target = out.at(index)
            _core.decode(codes, scales, quantized.format, divisor, target, thread_count(threads), extra=extra)


def roundtrip(how: Encoding, out: Matrices) -> None:
    """Write the decoded values of every matrix, as if it had been encoded."""
    batch = how.tensor.batch
    for index in batch:
        with batch.place(index):
            _core.roundtrip(
                how.tensor.at(index),
                how.info.name,
                how.scale_rule,
                how.scale_at(index),
                how.importance_at(index),
                how.saturate,
                out.at(index),
                how.threads,
            )


def encoding_errors(how: Encoding) -> list[ErrorSummary]:
    """The error that encoding would make, of every matrix."""
    batch, found = how.tensor.batch, []
    for index in batch:
        with batch.place(index):
            summary = _core.encoding_error(
                how.tensor.at(index),
                how.info.name,
                how.scale_rule,
                how.scale_at(index),
                how.importance_at(index),
                how.saturate,
                how.threads,
            )
        found.append(ErrorSummary(**summary))
    return found


def errors(measure: Callable[..., Any], weight: Tensor, quantized: Quantized, threads: int | None) -> list[Any]:
    """What ``measure`` says about every matrix and its codes, scales, format, divisor, threads and extra words."""
    batch = own_batch(quantized, quantized.format)
    tensor = Matrices(weight, "weight", batch.axis, batch.shape)
    found = []
    for index in batch:
        with batch.place(index):
            codes, scales, extra, divisor = stored_matrix(quantized, batch, index)
            arguments = codes, scales, quantized.format, divisor, thread_count(threads)
            found.append(measure(tensor.at(index), *arguments, extra=extra))
    return found


def error_histogram(
    weight: Tensor, quantized: Quantized, limit: float, bins: int, threads: int | None
) -> ErrorHistogram:
    """The errors of ``quantized`` between ``-limit`` and ``limit``, counted."""
    if not np.isfinite(limit):
        raise NumericError("weight: errors that are not finite have no histogram", hint="leave bins out")
    counts = np.zeros(bins, np.int64)

    def count(matrix: _core.TensorView, *stored: Any, extra: Array | None) -> None:
        codes, scales, format, divisor, count_of_threads = stored
        values = np.empty(matrix.shape, np.float32)
        _core.decode(codes, scales, format, divisor, values, count_of_threads, extra=extra)
        _core.subtract(matrix, values)
        counts[...] += np.histogram(values, bins, (-limit, limit))[0]

    errors(count, weight, quantized, threads)
    return ErrorHistogram(np.linspace(-limit, limit, bins + 1, dtype=np.float32), counts)
