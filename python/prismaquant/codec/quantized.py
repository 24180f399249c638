"""What codecs and solvers return: a quantized matrix, and how far it is from its weights. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prismaquant.types import Array

__all__ = ["ErrorSummary", "Quantized"]


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
        Element codes. nvfp4, mxfp4: uint8 ``[rows, columns / 2]``, the even column in the low nibble (nf4: in the high
        one); mxfp6: uint8 ``[rows, 3 * columns / 4]``, four codes in three bytes; int4: int32 ``[rows, columns / 8]``,
        ``q + 8``, column 0 in the lowest bits; 8-bit formats: uint8 ``[rows, columns]`` (integers in two's complement);
        bf16, fp16: uint16 ``[rows, columns]``, the bits.
    scales
        Block scales, one per block: uint8 E4M3 (nvfp4) or E8M0 (mx) codes, uint16 bfloat16 bits (fp8, int8_channel,
        int4), float32 (token formats, nf4), uint8 codes of bitsandbytes' dynamic map (nf4_double); ``None`` for bf16
        and fp16.
    global_scale
        Of nvfp4: the float32 **divisor** that compressed-tensors stores, so that
        ``value = element * (scale / global_scale)``; ``None`` for other formats.
    extra
        What `FormatInfo.extra` names. ``"zero_points"``: int32 ``[rows / 8, groups]``, ``zero + 8`` of eight rows in a
        word, row 0 in the lowest bits. ``"nested_scales"``: float32 ``[1, 1 + blocks / 256]``, the offset
        (``nested_offset``), then ``nested_absmax``. ``None`` for other formats.
    """

    format: str
    shape: tuple[int, int]
    codes: Array
    scales: Array | None
    global_scale: float | None
    extra: Array | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of codes, block scales, extra words and global scale."""
        arrays = sum(0 if array is None else array.nbytes for array in (self.scales, self.extra))
        return self.codes.nbytes + arrays + (0 if self.global_scale is None else 4)

    def __repr__(self) -> str:
        rows, columns = self.shape
        bits = 8 * self.nbytes / max(1, rows * columns)
        return f"Quantized({self.format}, {rows} x {columns}, {bits:.3f} bits per weight)"


@dataclass(frozen=True, slots=True)
class ErrorSummary:
    """How far decoded values are from the weights.

    Attributes
    ----------
    squared_error, squared_weight
        Sums of ``(decoded - weight)^2`` and of ``weight^2``, in float64.
    max_error
        Largest ``|decoded - weight|``.
    snr_db
        ``10 * log10(squared_weight / squared_error)``; infinite if nothing was lost.
    """

    squared_error: float
    squared_weight: float
    max_error: float
    snr_db: float
