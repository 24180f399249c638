"""The slow, readable twin of the codecs: what NVFP4, MXFP4, MXFP8 and FP8 are, in numpy. The fast path is held to it.

A format is a table of element values, a table of scale values and a block shape: ``element * (scale / global_scale)``.
Arithmetic is float32, rounding to nearest with ties to even codes.
"""

from __future__ import annotations

import numpy as np

from prismaquant.codec import Quantized
from prismaquant.errors import NumericError, ShapeError
from prismaquant.types import Array

F32, F64 = np.float32, np.float64


def values(exponent_bits: int, mantissa_bits: int) -> Array:
    """Value of every code of a small float: subnormals, binades of ``2^mantissa_bits``, then the negative ones."""
    exponent, mantissa = np.divmod(np.arange(1 << (exponent_bits + mantissa_bits)), 1 << mantissa_bits)
    significand = (exponent > 0) + mantissa / (1 << mantissa_bits)
    positive = np.ldexp(significand, np.maximum(exponent, 1) + 1 - (1 << (exponent_bits - 1)))
    return np.concatenate([positive, -positive])


E2M1, E4M3, BF16, E8M0 = values(2, 1), values(4, 3), values(8, 7), np.ldexp(1.0, np.arange(255) - 127)
E4M3[[127, 255]] = np.nan
#: Format -> elements, scales, block shape (0: the whole axis), whether the matrix may cut a block off.
FORMATS = {
    "nvfp4": (E2M1, E4M3, (1, 16), False),
    "mxfp4": (E2M1, E8M0, (1, 32), False),
    "mxfp8_e4m3": (E4M3, E8M0, (1, 32), False),
    "fp8_e4m3_channel": (E4M3, BF16, (1, 0), True),
    "fp8_e4m3_tensor": (E4M3, BF16, (0, 0), True),
    "fp8_e4m3_block": (E4M3, BF16, (128, 128), True),
}


def nearest(x: Array, table: Array) -> Array:
    """Code of the value nearest to each ``x``, saturating: a magnitude on the middle of two goes to the even code."""
    positive, magnitude = table[: len(table) // 2], np.abs(x, dtype=F64)
    middles = (positive[1:] + positive[:-1]) / 2
    code = np.searchsorted(middles, magnitude)
    code += np.isin(magnitude, middles) & (code % 2 == 1)
    return code + np.signbit(x) * len(positive)


def scale_codes(amax: F32, divisor: F32, elements: Array, scales: Array, rule: str) -> Array:
    """Scale codes that a block whose largest magnitude is ``amax`` may get."""
    largest = F32(np.nanmax(elements))
    if scales is E8M0:
        half, exponent = np.frexp(amax)  # amax = 2 * half * 2^(exponent - 1)
        top = int(np.log2(largest))
        code = int(exponent) - 1 - top + 127
        tried = [code, code + 1] if rule == "sweep" else [code + int(half >= 1.75 / 2)]
        return np.clip(tried, 1, 254 - top) if amax > 0 else np.array([127])
    if scales is E4M3 and rule == "sweep":
        return np.arange(1, 127)
    code = nearest(divisor * (amax / largest), scales)
    return np.array([code or (0x20 if scales is E4M3 else 0x3C00)])  # never zero, but 0.125 and 2^-7


def encode(weight: Array, format: str, rule: str = "amax", global_scale: float | None = None) -> Quantized:
    """Codes and scales of a float32 matrix; of all scales that are tried, the first with the least squared error."""
    elements, scales, (tall, wide), ragged = FORMATS[format]
    if weight.ndim != 2 or not (ragged or weight.shape[1] % wide == 0):
        raise ShapeError("weight")
    if not np.isfinite(weight).all():
        raise NumericError("weight")
    with np.errstate(over="ignore", divide="ignore"):
        own = F32(6 * (448 if rule == "amax" else 256)) / np.abs(weight).max()
    divisor = F32(1) if scales is not E4M3 else F32(global_scale or (own if np.isfinite(own) else 1))
    tall, wide = tall or weight.shape[0], wide or weight.shape[1]
    codes = np.zeros(weight.shape, np.uint8)
    chosen = np.zeros((-(-weight.shape[0] // tall), -(-weight.shape[1] // wide)), np.int64)
    for i, j in np.ndindex(chosen.shape):
        block = weight[i * tall : (i + 1) * tall, j * wide : (j + 1) * wide]
        tried = scale_codes(np.abs(block).max(), divisor, elements, scales, rule)
        factors = (scales[tried].astype(F32) / divisor)[:, None, None]
        rounded = nearest(block / factors, elements)
        errors = np.square(block.astype(F64) - elements[rounded] * factors.astype(F64)).reshape(len(tried), -1)
        best = np.cumsum(errors, axis=1)[:, -1].argmin()  # cumsum adds one after the other, sum does not
        codes[i * tall : (i + 1) * tall, j * wide : (j + 1) * wide], chosen[i, j] = rounded[best], tried[best]
    packed = codes[:, 0::2] | codes[:, 1::2] << 4 if elements is E2M1 else codes
    stored = chosen.astype(np.uint16 if scales is BF16 else np.uint8)
    return Quantized(format, weight.shape, packed, stored, float(divisor) if scales is E4M3 else None)


def decode(quantized: Quantized) -> Array:
    """The float32 matrix that ``quantized`` stands for."""
    elements, scales, (tall, wide), _ = FORMATS[quantized.format]
    (rows, columns), codes = quantized.shape, quantized.codes
    if elements is E2M1:
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(rows, columns)
    factors = scales[quantized.scales].astype(F32) / F32(quantized.global_scale or 1)
    factors = factors.repeat(tall or rows, axis=0).repeat(wide or columns, axis=1)[:rows, :columns]
    return elements[codes].astype(F32) * factors
