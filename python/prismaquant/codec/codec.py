"""The codec of one format: encode, decode, measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prismaquant.codec.arguments import DtypeName, ScaleRule, numpy_dtype
from prismaquant.codec.batch import Matrices, batch_of
from prismaquant.codec.error import ErrorSummary, total
from prismaquant.codec.html import facts
from prismaquant.codec.quantized import Quantized
from prismaquant.errors import ArgumentError, ShapeError
from prismaquant.formats import FormatInfo, format_info

if TYPE_CHECKING:
    from prismaquant.types import Array, Tensor

__all__ = ["Codec", "get_codec"]


@dataclass(frozen=True, slots=True, repr=False)
class Codec:
    """Encoder and decoder of one format; get one from `get_codec`.

    Tensors are numpy arrays of float32, float16 or ``ml_dtypes.bfloat16``, or CPU tensors with ``__dlpack__`` (torch,
    JAX) of these types, with any strides; they are borrowed, never copied. They are matrices ``[rows, columns]``, or
    batches of them: ``[..., rows, columns]``, the experts of a layer for example. Every matrix of a batch is encoded as
    it would be alone. A vector is refused: one row is ``vector[None]``.

    ``axis`` names the axis along which groups run and rows extend, by default the last; the others keep their order.
    With ``axis=-2`` the transposed matrices are encoded, without a copy.

    ``threads=None`` uses all cores; the result does not depend on it. Activations are matrices too, one token per row:
    token formats and formats with groups along a row give the same bytes for a row alone as among others (nvfp4: under
    one ``global_scale``). Engines quantize activations by ``scale_rule="amax"``.
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

    @property
    def values(self) -> Array:
        """What each element code stands for under scale 1: float32 ``[2 ** element bits]``, in the order of the codes.

        Codes that encoding never gives are there too, with NaN and infinity where the format has them.
        """
        from prismaquant import _core

        return _core.element_values(self.name)

    def encode(
        self,
        weight: Tensor,
        *,
        scale_rule: ScaleRule = "sweep",
        global_scale: float | Array | None = None,
        weights: Array | None = None,
        saturate: bool = False,
        scales: Array | None = None,
        extra: Array | None = None,
        axis: int = -1,
        out: Quantized | None = None,
        threads: int | None = None,
    ) -> Quantized:
        """Round every element to the nearest value of the format, ties to even, saturating.

        Parameters
        ----------
        weight
            ``[rows, columns]`` or ``[..., rows, columns]``.
        scale_rule
            ``"sweep"``: the scale with the least squared error, of all E4M3 scales for nvfp4 and of two exponents for
            MX formats; formats without a scale sweep (FP8, integers, NF4) give the bytes of ``"amax"``. ``"amax"``: the
            largest magnitude of a block becomes the largest element (the bytes of compressed-tensors' own compressor).
            ``"four_over_six"`` (nvfp4): the largest magnitude becomes 6 or 4, whichever errs less. ``"floor"``,
            ``"ceil"`` (mx): the OCP exponent, or the smallest one under which nothing saturates. ``"given"``:
            ``scales`` (and ``extra``) are used as they are.
        global_scale
            Divisor for nvfp4: one number, or for a batch one for each matrix, ``[batch axes]``. By default the own one
            of each matrix: ``256 * 6 / amax`` for ``"sweep"`` and ``"four_over_six"``, which leaves room for upward
            moves, else ``448 * 6 / amax``. Fused siblings must share one: see `prismaquant.shared_global_scale`.
        weights
            How much the squared error of each element counts in ``"sweep"`` and ``"four_over_six"``: one number for
            each place along ``axis``, ``[columns]``, or what broadcasts to the shape of ``weight`` with as many axes.
            Finite, not negative.
        saturate
            Take infinite values as the largest finite magnitude of the matrix instead of refusing them.
        scales, extra
            For ``"given"``: arrays as in `Quantized`.
        axis
            Along which groups run.
        out
            A result of the same shape, format and axis, whose arrays are overwritten; the one that is returned holds
            them. After an error they may hold anything.

        Raises
        ------
        ShapeError
            Fewer than two axes, no such ``axis``, or its length not a multiple of the group size.
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
        Quantized(nvfp4, 2 x 32, 5.000 bits per weight, global scale 1536)
        >>> get_codec("mxfp4").encode(np.ones((8, 64, 5), np.float32), axis=1)
        Quantized(mxfp4, 8 x 64 x 5, 4.250 bits per weight, groups along axis -2)
        """
        from prismaquant.codec import loops, parts

        if (scales is not None or extra is not None) != (scale_rule == "given") and self.info.scale_bits:
            raise ArgumentError("scales and extra go together with scale_rule='given'")
        how = loops.Encoding.of(self.info, weight, scale_rule, global_scale, weights, saturate, axis, threads)
        batch = how.tensor.batch
        arrays = parts.new_arrays(self.name, batch, out)
        if scale_rule == "given":
            parts.copy_given({"scales": scales, "extra": extra}, arrays)
        return loops.encode(how, arrays)

    def decode(
        self,
        quantized: Quantized,
        *,
        dtype: DtypeName = "float32",
        out: Tensor | None = None,
        threads: int | None = None,
    ) -> Tensor:
        """The tensor that ``quantized`` stands for, of its shape.

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

        from prismaquant.codec import loops, parts

        batch = parts.own_batch(quantized, self.name)
        if out is None:
            out = np.empty(batch.shape, numpy_dtype(dtype))
        loops.decode(quantized, batch, Matrices(out, "out", batch.axis, batch.shape), threads)
        return out

    def roundtrip(
        self,
        weight: Tensor,
        *,
        scale_rule: ScaleRule = "sweep",
        global_scale: float | Array | None = None,
        weights: Array | None = None,
        saturate: bool = False,
        axis: int = -1,
        out: Tensor | None = None,
        threads: int | None = None,
    ) -> Tensor:
        """Fake quantization: what `encode` and then `decode` give, in the dtype of ``weight``, without storing codes.

        Parameters
        ----------
        out
            A writable tensor of the shape and dtype of ``weight``; it is returned. It may be ``weight`` itself. By
            default what ``weight.new_empty`` makes (torch), or else a new numpy array.

        Other parameters and errors as in `encode`.
        """
        from prismaquant.codec import loops, parts

        _require_choosing(scale_rule)
        how = loops.Encoding.of(self.info, weight, scale_rule, global_scale, weights, saturate, axis, threads)
        batch, dtype = how.tensor.batch, how.tensor.dtype
        if out is None:
            out = parts.empty_like(weight, how.tensor)
        target = Matrices(out, "out", batch.axis, batch.shape)
        if target.dtype != dtype:
            raise TypeError(f"out: dtype {target.dtype} is not that of weight, {dtype}")
        loops.roundtrip(how, target)
        return out

    def error(
        self,
        weight: Tensor,
        quantized: Quantized | None = None,
        *,
        scale_rule: ScaleRule = "sweep",
        global_scale: float | Array | None = None,
        weights: Array | None = None,
        saturate: bool = False,
        axis: int = -1,
        bins: int | None = None,
        threads: int | None = None,
    ) -> ErrorSummary:
        """The error of ``quantized``, or without it the one that encoding ``weight`` would make; of a batch, the whole.

        Parameters
        ----------
        bins
            Makes a histogram of so many bins, too: `ErrorSummary.histogram`, a picture in Jupyter. This takes a decoded
            copy of each matrix, one at a time; without it nothing is stored.

        Other parameters and errors as in `encode`; they are for the second case.
        """
        from prismaquant import _core
        from prismaquant.codec import loops, parts

        if bins is not None and bins < 1:
            raise ArgumentError(f"bins: {bins}, expected at least 1, or None for no histogram")
        if quantized is None:
            _require_choosing(scale_rule)
            how = loops.Encoding.of(self.info, weight, scale_rule, global_scale, weights, saturate, axis, threads)
            if bins is None:
                return total(loops.encoding_errors(how))
            quantized = loops.encode(how, parts.new_arrays(self.name, how.tensor.batch, None))
        else:
            parts.own_batch(quantized, self.name)
        summary = total([ErrorSummary(**one) for one in loops.errors(_core.error, weight, quantized, threads)])
        if bins is None:
            return summary
        histogram = loops.error_histogram(weight, quantized, summary.max_error, bins, threads)
        return replace(summary, histogram=histogram)

    def squared_error(self, weight: Tensor, quantized: Quantized, *, threads: int | None = None) -> float:
        """Sum of ``(decoded - weight)^2`` in float64; not finite where ``weight`` is not. Errors as for `decode`."""
        from prismaquant import _core
        from prismaquant.codec import loops, parts

        parts.own_batch(quantized, self.name)
        return float(sum(loops.errors(_core.squared_error, weight, quantized, threads)))

    def bits_per_weight(self, shape: Sequence[int], *, axis: int = -1) -> float:
        """Bits of everything stored for a tensor of ``shape``, over its elements.

        Raises
        ------
        ShapeError
            The tensor is empty, or has fewer than two axes.
        """
        from prismaquant import _core

        batch = batch_of(shape, axis, "shape")
        if 0 in batch.shape:
            raise ShapeError(f"shape: {' x '.join(map(str, batch.shape))} holds no weights")
        return 8 * _core.stored_bytes(self.name, batch.rows, batch.columns) / (batch.rows * batch.columns)

    def __repr__(self) -> str:
        return f"Codec({self.name}: {', '.join(facts(self.info))}; scale rules {', '.join(self.scale_rules)})"

    def _repr_html_(self) -> str:
        from prismaquant.codec.html import codec_html

        return codec_html(self)


def get_codec(name: str) -> Codec:
    """The codec of the format ``name`` (see `prismaquant.list_formats`).

    Raises
    ------
    FormatError
        If there is none; the message lists all and the nearest.
    """
    return Codec(format_info(name))


def _require_choosing(scale_rule: str) -> None:
    if scale_rule == "given":
        raise ArgumentError("scale_rule: 'given' is for encode only")
