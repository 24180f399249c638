"""Codecs: encode a matrix in a number format, decode it, measure the error. The face of the C++ room ``codec/``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from prismaquant.errors import ArgumentError, FormatError, ShapeError
from prismaquant.formats import FormatInfo, format_info, unknown_name
from prismaquant.quantized import ErrorSummary, Quantized

if TYPE_CHECKING:
    from prismaquant.types import Array, Tensor

__all__ = ["Codec", "ErrorSummary", "Quantized", "get_codec", "require_global_scale", "thread_count"]

#: Rules for block scales; which of them a format takes: `Codec.scale_rules`.
ScaleRule: TypeAlias = Literal["amax", "sweep", "four_over_six", "floor", "ceil", "given"]

#: The rules whose choice depends on the importance of the elements.
_WEIGHTED_RULES = ("sweep", "four_over_six")


@dataclass(frozen=True, slots=True)
class Codec:
    """Encoder and decoder of one format; get one from `get_codec`.

    Matrices are given as numpy arrays of float32, float16 or ``ml_dtypes.bfloat16``, or as CPU tensors with
    ``__dlpack__`` (torch), with any strides; they are borrowed, never copied. ``threads=None`` uses all cores; the
    result does not depend on it. Activations are matrices too, one token per row: token formats and formats with groups
    along a row give the same bytes for a row alone as among others (nvfp4: under one ``global_scale``).
    """

    info: FormatInfo

    @property
    def name(self) -> str:
        """Name of the format."""
        return self.info.name

    @property
    def scale_rules(self) -> tuple[str, ...]:
        """Names of the scale rules that the format takes."""
        from prismaquant import _core

        return tuple(_core.list_scale_rules(self.name))

    def encode(
        self,
        weight: Tensor,
        *,
        scale_rule: ScaleRule = "amax",
        global_scale: float | None = None,
        weights: Array | None = None,
        saturate: bool = False,
        scales: Array | None = None,
        extra: Array | None = None,
        threads: int | None = None,
    ) -> Quantized:
        """Round every element to the nearest value of the format, ties to even, saturating.

        Parameters
        ----------
        weight
            ``[rows, columns]``.
        scale_rule
            ``"amax"``: the largest magnitude of a block becomes the largest element (the bytes of compressed-tensors'
            own compressor). ``"sweep"``: the scale with the least squared error, of all E4M3 scales for nvfp4 and of
            two exponents for MX formats; formats without a scale sweep (FP8, integers, NF4) give the same bytes as for
            ``"amax"``. ``"four_over_six"`` (nvfp4): the largest magnitude becomes 6 or 4, whichever errs less.
            ``"floor"``, ``"ceil"`` (mx): the OCP exponent, or the smallest one under which nothing saturates.
            ``"given"``: ``scales`` (and ``extra``) are used as they are.
        global_scale
            Divisor for nvfp4; by default ``448 * 6 / amax`` (``256 * 6 / amax`` for ``"sweep"`` and
            ``"four_over_six"``, which leaves room for upward moves). Fused siblings must share one: see
            `prismaquant.shared_global_scale`.
        weights
            How much the squared error of each element counts in ``"sweep"`` and ``"four_over_six"``: ``[columns]`` or
            ``[rows, columns]``, finite, not negative.
        saturate
            Take infinite values as the largest finite magnitude of ``weight`` instead of refusing them.
        scales, extra
            For ``"given"``: arrays as in `Quantized`.

        Raises
        ------
        ShapeError
            Not two axes, or columns (axis 1) not a multiple of the group size.
        NumericError
            NaN or infinite values (how many, and where the first is), or a global scale that is not positive.
        FormatError
            An unknown scale rule, or one that the format does not take.
        TypeError
            A dtype or an object that is not accepted.

        Examples
        --------
        >>> import numpy as np
        >>> get_codec("nvfp4").encode(np.ones((2, 32), np.float32))
        Quantized(nvfp4, 2 x 32, 5.000 bits per weight)
        """
        from prismaquant import _core

        if (scales is not None or extra is not None) != (scale_rule == "given") and self.info.scale_bits:
            raise ArgumentError("scales and extra go together with scale_rule='given'")
        self._require_rule(scale_rule, global_scale)
        importance = self._importance(weights, weight, scale_rule)
        fields = _core.encode(
            weight,
            self.name,
            scale_rule,
            global_scale,
            thread_count(threads),
            importance=importance,
            saturate=saturate,
            scales=scales,
            extra=extra,
        )
        return Quantized(self.name, **fields)

    def decode(
        self,
        quantized: Quantized,
        *,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        out: Tensor | None = None,
        threads: int | None = None,
    ) -> Tensor:
        """The matrix that ``quantized`` stands for, ``[rows, columns]``.

        Each value is ``element * (scale / global_scale)`` in float32, the order in which compressed-tensors decodes;
        for 16 bits it is then rounded to nearest, ties to even.

        Parameters
        ----------
        dtype
            Of the returned array; bfloat16 needs ml_dtypes. Ignored if ``out`` is given.
        out
            A writable tensor of the same shape to decode into; it is returned.

        Raises
        ------
        FormatError
            ``quantized`` is in another format.
        ShapeError
            Codes, scales or ``out`` do not have the shapes that the format stores.
        """
        import numpy as np

        from prismaquant import _core

        self._require_own(quantized)
        if out is None:
            out = np.empty(quantized.shape, _dtype(dtype))
        elif tuple(getattr(out, "shape", quantized.shape)) != quantized.shape:
            raise ShapeError(f"out: shape {tuple(out.shape)}, expected {quantized.shape}")
        _core.decode(*self._stored(quantized), out, thread_count(threads), extra=quantized.extra)
        return out

    def roundtrip(
        self,
        weight: Tensor,
        *,
        scale_rule: ScaleRule = "amax",
        global_scale: float | None = None,
        weights: Array | None = None,
        saturate: bool = False,
        out: Tensor | None = None,
        threads: int | None = None,
    ) -> Tensor:
        """Fake quantization: what `encode` and then `decode` give, in the dtype of ``weight``, without storing codes.

        Parameters
        ----------
        out
            A writable tensor of the shape and dtype of ``weight``; it is returned. It may be ``weight`` itself. By
            default a new numpy array, or what ``weight.new_empty`` makes (torch).

        Other parameters and errors as in `encode`.
        """
        from prismaquant import _core

        _require_choosing(scale_rule)
        self._require_rule(scale_rule, global_scale)
        importance = self._importance(weights, weight, scale_rule)
        if out is None:
            out = _empty_like(weight)
        _core.roundtrip(weight, self.name, scale_rule, global_scale, importance, saturate, out, thread_count(threads))
        return out

    def error(
        self,
        weight: Tensor,
        quantized: Quantized | None = None,
        *,
        scale_rule: ScaleRule = "amax",
        global_scale: float | None = None,
        weights: Array | None = None,
        saturate: bool = False,
        threads: int | None = None,
    ) -> ErrorSummary:
        """The error of ``quantized``, or without it the one that encoding ``weight`` would make.

        Parameters and errors as in `encode`; they are for the second case.
        """
        from prismaquant import _core

        if quantized is not None:
            self._require_own(quantized)
            found = _core.error(weight, *self._stored(quantized), thread_count(threads), extra=quantized.extra)
            return ErrorSummary(**found)
        _require_choosing(scale_rule)
        self._require_rule(scale_rule, global_scale)
        importance = self._importance(weights, weight, scale_rule)
        found = _core.encoding_error(
            weight, self.name, scale_rule, global_scale, importance, saturate, thread_count(threads)
        )
        return ErrorSummary(**found)

    def squared_error(self, weight: Tensor, quantized: Quantized, *, threads: int | None = None) -> float:
        """Sum of ``(decoded - weight)^2`` in float64; not finite where ``weight`` is not. Errors as for `decode`."""
        from prismaquant import _core

        self._require_own(quantized)
        return _core.squared_error(weight, *self._stored(quantized), thread_count(threads), extra=quantized.extra)

    def bits_per_weight(self, shape: tuple[int, int]) -> float:
        """Bits of everything stored for a matrix of ``shape``, over its elements.

        Raises
        ------
        ShapeError
            The matrix is empty.
        """
        from prismaquant import _core

        rows, columns = shape
        if rows < 1 or columns < 1:
            raise ShapeError(f"shape: {rows} x {columns} holds no weights")
        return 8 * _core.stored_bytes(self.name, rows, columns) / (rows * columns)

    def _require_own(self, quantized: Quantized) -> None:
        if quantized.format != self.name:
            raise FormatError(f"quantized: is in format {quantized.format}, this codec is for {self.name}")

    def _stored(self, quantized: Quantized) -> tuple[Array, Array | None, str, float]:
        divisor = 1.0 if quantized.global_scale is None else quantized.global_scale
        return quantized.codes, quantized.scales, self.name, divisor

    def _require_rule(self, scale_rule: str, global_scale: float | None) -> None:
        if scale_rule not in (known := self.scale_rules):
            raise unknown_name("scale rule", scale_rule, known)
        require_global_scale(self.info, global_scale)
        if scale_rule == "given" and self.info.has_global_scale and global_scale is None:
            raise ArgumentError(f"global_scale: scales of {self.name} are given, so their global scale is needed")

    def _importance(self, weights: Array | None, weight: Tensor, scale_rule: str) -> Array | None:
        if weights is None:
            return None
        if scale_rule not in _WEIGHTED_RULES:
            raise ArgumentError(f"weights: the scale rule {scale_rule!r} does not use them")
        import numpy as np

        array = np.asarray(weights, np.float32)
        shape = tuple(getattr(weight, "shape", ()))
        if len(shape) != 2:
            return None  # the core refuses such a weight, and says why
        if array.shape not in (shape, shape[1:]):
            raise ShapeError(f"weights: shape {array.shape}, expected ({shape[1]},) or {shape}")
        return np.broadcast_to(array, shape)


def get_codec(name: str) -> Codec:
    """The codec of the format ``name`` (see `prismaquant.list_formats`).

    Raises
    ------
    FormatError
        If there is none; the message lists all and the nearest.
    """
    return Codec(format_info(name))


def thread_count(threads: int | None) -> int:
    """The argument ``threads`` as the compiled core takes it: 0 stands for all cores."""
    if threads is not None and threads < 1:
        raise ArgumentError(f"threads: {threads}, expected at least 1, or None for all cores")
    return threads or 0


def require_global_scale(info: FormatInfo, global_scale: float | None) -> None:
    """Refuse a global scale that was given for a format without one."""
    if global_scale is not None and not info.has_global_scale:
        raise ArgumentError(f"global_scale: {global_scale} was given, but {info.name} has none")


def _require_choosing(scale_rule: str) -> None:
    if scale_rule == "given":
        raise ArgumentError("scale_rule: 'given' is for encode only")


def _empty_like(weight: Tensor) -> Tensor:
    import numpy as np

    if isinstance(weight, np.ndarray):
        return np.empty(weight.shape, weight.dtype)
    if hasattr(weight, "new_empty"):
        return weight.new_empty(tuple(weight.shape))
    raise ArgumentError(f"out: needed for a weight of type {type(weight).__name__}")


def _dtype(name: str) -> object:
    import numpy as np

    if name in ("float32", "float16"):
        return np.dtype(name)
    if name != "bfloat16":
        raise ArgumentError(f"dtype: {name!r} is not supported; use 'float32', 'bfloat16' or 'float16'")
    import ml_dtypes

    return ml_dtypes.bfloat16
