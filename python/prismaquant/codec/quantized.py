"""What encoding gives: a quantized matrix, or a batch of them. Plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prismaquant.codec.batch import batch_of
from prismaquant.errors import ShapeError
from prismaquant.formats import format_info

if TYPE_CHECKING:
    from prismaquant.codec.storage import StoredTensor
    from prismaquant.types import Array

__all__ = ["Quantized"]


@dataclass(frozen=True, slots=True)
class Quantized:
    """A quantized matrix, or a batch of them.

    Attributes
    ----------
    format
        Name of the format.
    shape
        Of the tensor that the codes stand for: ``(rows, columns)``, or more axes.
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
        ``value = element * (scale / global_scale)``; of a batch float32 ``[batch axes]``; ``None`` for other formats.
    extra
        What `FormatInfo.extra` names. ``"zero_points"``: int32 ``[rows / 8, groups]``, ``zero + 8`` of eight rows in a
        word, row 0 in the lowest bits. ``"nested_scales"``: float32 ``[1, 1 + blocks / 256]``, the offset
        (``nested_offset``), then ``nested_absmax``. ``None`` for other formats.
    axis
        The axis of ``shape`` along which groups run, negative. Arrays are stored with it as the last axis, the other
        axes in their order: the last of them are the rows, those before are the batch, which leads the shape of
        ``codes``, ``scales`` and ``extra``.

    A batch is indexed and iterated like an array: ``quantized[3]`` is its part 3, without a copy.
    """

    format: str
    shape: tuple[int, ...]
    codes: Array
    scales: Array | None
    global_scale: float | Array | None
    extra: Array | None = None
    axis: int = -1

    @property
    def nbytes(self) -> int:
        """Bytes of codes, block scales, extra words and global scales."""
        arrays = sum(0 if array is None else array.nbytes for array in (self.codes, self.scales, self.extra))
        return arrays + (0 if self.global_scale is None else 4 * getattr(self.global_scale, "size", 1))

    @property
    def bits_per_weight(self) -> float:
        """Bits of everything stored, over the elements."""
        return 8 * self.nbytes / max(1, math.prod(self.shape))

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """``(rows, columns)`` of each matrix as it is stored: ``axis`` is the columns."""
        batch = batch_of(self.shape, self.axis, "shape")
        return batch.rows, batch.columns

    def __getitem__(self, index: int) -> Quantized:
        if len(self.shape) == 2:
            raise ShapeError(f"quantized: is one matrix {self.shape}; only a batch of matrices has parts")
        first = int(self.axis == -len(self.shape))  # the first axis that is not the one along which groups run
        shape = self.shape[:first] + self.shape[first + 1 :]
        scale = self.global_scale
        if scale is not None:
            scale = scale[index]  # type: ignore[index]
        return replace(
            self,
            shape=shape,
            codes=self.codes[index],
            scales=None if self.scales is None else self.scales[index],
            global_scale=float(scale) if getattr(scale, "ndim", 1) == 0 else scale,  # type: ignore[arg-type]
            extra=None if self.extra is None else self.extra[index],
            axis=max(self.axis, -len(shape)),
        )

    def code_counts(self) -> Array:
        """How many elements have each code: int64 ``[2 ** element bits]``, in the order of `Codec.values`."""
        from prismaquant.codec.counts import code_counts

        return code_counts(self.codes, format_info(self.format).element_bits)

    def to_compressed_tensors(self) -> dict[str, StoredTensor]:
        """The tensors in which compressed-tensors stores the weight of a Linear: suffix -> dtype and array.

        The arrays share memory with this object where they can. A matrix with another ``axis`` than the last is stored
        transposed, as ``[rows, columns]``: compressed-tensors has groups run along the inputs, its last axis.

        Raises
        ------
        FormatError
            compressed-tensors does not store the format (nf4, e5m2, mxint8, token formats).
        ShapeError
            A batch, or arrays that do not have the shapes that the format stores.

        Examples
        --------
        >>> import numpy as np
        >>> from prismaquant.codec import get_codec
        >>> tensors = get_codec("nvfp4").encode(np.ones((2, 32), np.float32)).to_compressed_tensors()
        >>> {suffix: (tensor.dtype, tensor.array.shape) for suffix, tensor in tensors.items()}
        {'weight_packed': ('U8', (2, 16)), 'weight_scale': ('F8_E4M3', (2, 2)), 'weight_global_scale': ('F32', (1,))}
        """
        from prismaquant.codec import storage

        if len(self.shape) != 2:
            raise ShapeError(
                f"quantized: is a batch of shape {self.shape}; compressed-tensors stores matrices one by one",
                hint="take its parts: quantized[i].to_compressed_tensors()",
            )
        return storage.pack(self)

    @classmethod
    def from_compressed_tensors(cls, tensors: Mapping[str, Any], format: str) -> Quantized:
        """The matrix that the tensors of a compressed-tensors layer hold: the inverse of `to_compressed_tensors`.

        Parameters
        ----------
        tensors
            Suffix -> `StoredTensor`, torch tensor, or array of numpy or ml_dtypes (for F8_E4M3 and BF16 also of the
            bits: uint8, uint16). Nothing is copied but tensors that are strided or not in CPU memory. Suffixes that are
            not of the weight (``bias``, ``input_global_scale``) are ignored.
        format
            Name of the format; a config group of the checkpoint says which one it is.

        Raises
        ------
        FormatError
            compressed-tensors does not store the format.
        ShapeError
            A tensor is missing, has another dtype or shape than the format stores, or is none of the format's.
        """
        from prismaquant.codec import storage

        return cls(**storage.unpack(tensors, format))

    def __repr__(self) -> str:
        facts = [self.format, " x ".join(map(str, self.shape)), f"{self.bits_per_weight:.3f} bits per weight"]
        if self.axis != -1:
            facts.append(f"groups along axis {self.axis}")
        if isinstance(self.global_scale, float):
            facts.append(f"global scale {self.global_scale:g}")
        return f"Quantized({', '.join(facts)})"

    def _repr_html_(self) -> str:
        from prismaquant.codec.html import quantized_html

        return quantized_html(self)
