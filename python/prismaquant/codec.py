"""Codecs: encode a matrix in a number format, decode it, measure the error. The face of the C++ room ``codec/``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from prismaquant.errors import ArgumentError, FormatError, ShapeError
from prismaquant.formats import FormatInfo, format_info, unknown_name

if TYPE_CHECKING:
    from prismaquant.types import Array, Tensor

__all__ = ["Codec", "Quantized", "get_codec", "require_global_scale", "thread_count"]

#: Rules for block scales: from the largest magnitude of the block, or the best of all codes that can be the best.
_SCALE_RULES = ("amax", "sweep")


@dataclass(frozen=True, slots=True)
class Quantized:
    """A quantized matrix.

    Attributes
    ----------
    format
        Name of the format.
    shape
        ``(rows, columns)`` of the matrix that the codes stand for.
    codes
        Element codes. 4-bit formats: uint8 ``[rows, columns / 2]``, the even column in the low nibble; 8-bit formats:
        uint8 ``[rows, columns]``; bf16: uint16 ``[rows, columns]``, the bits.
    scales
        Block scales, one per block: uint8 E4M3 (nvfp4) or E8M0 (mxfp4, mxfp8_e4m3) codes, uint16 bfloat16 bits (fp8);
        ``None`` for bf16.
    global_scale
        Of nvfp4: the float32 **divisor** that compressed-tensors stores, so that
        ``value = element * (scale / global_scale)``; ``None`` for other formats.
    """

    format: str
    shape: tuple[int, int]
    codes: Array
    scales: Array | None
    global_scale: float | None

    @property
    def nbytes(self) -> int:
        """Bytes of codes, block scales and global scale."""
        scales = 0 if self.scales is None else self.scales.nbytes
        return self.codes.nbytes + scales + (0 if self.global_scale is None else 4)

    def __repr__(self) -> str:
        rows, columns = self.shape
        bits = 8 * self.nbytes / max(1, rows * columns)
        return f"Quantized({self.format}, {rows} x {columns}, {bits:.3f} bits per weight)"


@dataclass(frozen=True, slots=True)
class Codec:
    """Encoder and decoder of one format; get one from `get_codec`.

    Matrices are given as numpy arrays of float32, float16 or ``ml_dtypes.bfloat16``, or as CPU tensors with
    ``__dlpack__`` (torch), with any strides; they are borrowed, never copied. ``threads=None`` uses all cores; the
    result does not depend on it.
    """

    info: FormatInfo

    @property
    def name(self) -> str:
        """Name of the format."""
        return self.info.name

    def encode(
        self,
        weight: Tensor,
        *,
        scale_rule: Literal["amax", "sweep"] = "amax",
        global_scale: float | None = None,
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
            two exponents for MX formats. Formats without a scale sweep (FP8) give the same bytes for both.
        global_scale
            Divisor for nvfp4; by default ``448 * 6 / amax`` (``256 * 6 / amax`` for ``"sweep"``, which leaves room for
            upward moves). Fused siblings must share one: see `prismaquant.shared_global_scale`.

        Raises
        ------
        ShapeError
            Not two axes, or columns (axis 1) not a multiple of the group size.
        NumericError
            NaN or infinite values (how many, and where the first is), or a global scale that is not positive.
        TypeError
            A dtype or an object that is not accepted.

        Examples
        --------
        >>> import numpy as np
        >>> get_codec("nvfp4").encode(np.ones((2, 32), np.float32))
        Quantized(nvfp4, 2 x 32, 5.000 bits per weight)
        """
        from prismaquant import _core

        if scale_rule not in _SCALE_RULES:
            raise unknown_name("scale rule", scale_rule, _SCALE_RULES)
        require_global_scale(self.info, global_scale)
        return Quantized(self.name, **_core.encode(weight, self.name, scale_rule, global_scale, thread_count(threads)))

    def decode(
        self,
        quantized: Quantized,
        *,
        dtype: Literal["float32", "bfloat16"] = "float32",
        out: Tensor | None = None,
        threads: int | None = None,
    ) -> Tensor:
        """The matrix that ``quantized`` stands for, ``[rows, columns]``.

        Each value is ``element * (scale / global_scale)`` in float32, the order in which compressed-tensors decodes;
        for bfloat16 it is then rounded to nearest, ties to even.

        Parameters
        ----------
        dtype
            Of the returned array; bfloat16 needs ml_dtypes. Ignored if ``out`` is given.
        out
            A writable float32 or bfloat16 tensor of the same shape to decode into; it is returned.

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
            out = np.empty(quantized.shape, np.float32 if dtype == "float32" else _bfloat16(dtype))
        elif tuple(getattr(out, "shape", quantized.shape)) != quantized.shape:
            raise ShapeError(f"out: shape {tuple(out.shape)}, expected {quantized.shape}")
        _core.decode(quantized.codes, quantized.scales, self.name, _divisor(quantized), out, thread_count(threads))
        return out

    def squared_error(self, weight: Tensor, quantized: Quantized, *, threads: int | None = None) -> float:
        """Sum of ``(decoded - weight)^2`` in float64; not finite where ``weight`` is not. Errors as for `decode`."""
        from prismaquant import _core

        self._require_own(quantized)
        return _core.squared_error(
            weight, quantized.codes, quantized.scales, self.name, _divisor(quantized), thread_count(threads)
        )

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


def _divisor(quantized: Quantized) -> float:
    return 1.0 if quantized.global_scale is None else quantized.global_scale


def _bfloat16(dtype: str) -> object:
    if dtype != "bfloat16":
        raise ArgumentError(f"dtype: {dtype!r} is not supported; use 'float32' or 'bfloat16'")
    import ml_dtypes

    return ml_dtypes.bfloat16
