"""Elements under a scale of one are the nearest values that ml_dtypes and torch round to.

Every finite bfloat16 and float16 number goes through. One difference, which is the rule here: beyond the largest value
we saturate, where a cast gives infinity or NaN. So inputs are clipped before the cast.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from prismaquant.codec import Quantized, get_codec
from prismaquant.types import Array

#: Format -> element of ml_dtypes, largest value, code of the scale one.
ELEMENTS = {
    "mxfp4": (ml_dtypes.float4_e2m1fn, 6.0, 127),
    "mxfp6_e2m3": (ml_dtypes.float6_e2m3fn, 7.5, 127),
    "mxfp6_e3m2": (ml_dtypes.float6_e3m2fn, 28.0, 127),
    "mxfp8_e4m3": (ml_dtypes.float8_e4m3fn, 448.0, 127),
    "mxfp8_e5m2": (ml_dtypes.float8_e5m2, 57344.0, 127),
    "fp8_e4m3_token": (ml_dtypes.float8_e4m3fn, 448.0, 1.0),
    "fp8_e5m2_channel": (ml_dtypes.float8_e5m2, 57344.0, 0x3F80),
}


def numbers(dtype: type) -> Array:
    """Every finite number of a 16-bit type, 256 to a row."""
    every = np.arange(65536, dtype=np.uint16).view(dtype)
    with np.errstate(invalid="ignore"):
        finite = every[np.isfinite(every.astype(np.float32))]
    return finite.reshape(-1, 256)


def under_one(matrix: Array, format: str) -> Quantized:
    codec = get_codec(format)
    like = codec.encode(matrix)
    assert like.scales is not None
    one = np.full(like.scales.shape, ELEMENTS[format][2], like.scales.dtype)
    return codec.encode(matrix, scale_rule="given", scales=one)


def codes(quantized: Quantized) -> Array:
    """One code per element."""
    words = quantized.codes
    match quantized.format:
        case "mxfp4":
            return np.stack([words & 15, words >> 4], -1).reshape(quantized.shape)
        case "mxfp6_e2m3" | "mxfp6_e3m2":
            bits = np.unpackbits(words, axis=1, bitorder="little").reshape(*quantized.shape, 6)
            return np.packbits(bits, axis=-1, bitorder="little")[..., 0]
    return words


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("format", ELEMENTS)
def test_codes_are_those_of_ml_dtypes(format: str, dtype: type) -> None:
    element, largest, _ = ELEMENTS[format]
    matrix = numbers(dtype)
    quantized = under_one(matrix, format)
    expected = np.clip(matrix.astype(np.float32), -largest, largest).astype(element)
    np.testing.assert_array_equal(codes(quantized), expected.view(np.uint8))
    np.testing.assert_array_equal(get_codec(format).decode(quantized), expected.astype(np.float32))


@pytest.mark.parametrize(("format", "dtype"), [("mxfp8_e4m3", torch.float8_e4m3fn), ("mxfp8_e5m2", torch.float8_e5m2)])
def test_codes_are_those_of_torch(format: str, dtype: torch.dtype) -> None:
    largest = ELEMENTS[format][1]
    matrix = numbers(ml_dtypes.bfloat16).astype(np.float32)
    expected = torch.from_numpy(matrix).clamp(-largest, largest).to(dtype).view(torch.uint8).numpy()
    np.testing.assert_array_equal(codes(under_one(matrix, format)), expected)


@pytest.mark.parametrize("rule", ["amax", "sweep", "floor", "ceil"])
@pytest.mark.parametrize("format", [f for f in ELEMENTS if f.startswith("mx")])
def test_scales_are_those_of_ml_dtypes(format: str, rule: str) -> None:
    """E8M0 codes decode to the powers of two of ``float8_e8m0fnu``."""
    element = ELEMENTS[format][0]
    weight = np.random.default_rng(1).standard_normal((8, 256)).astype(np.float32)
    codec = get_codec(format)
    quantized = codec.encode(weight, scale_rule=rule)
    assert quantized.scales is not None
    scales = quantized.scales.view(ml_dtypes.float8_e8m0fnu).astype(np.float32).repeat(32, axis=1)
    expected = codes(quantized).view(element).astype(np.float32) * scales
    np.testing.assert_array_equal(codec.decode(quantized), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_decoding_to_16_bits_rounds_as_a_cast(dtype: str) -> None:
    codec = get_codec("nvfp4")
    weight = np.random.default_rng(2).standard_normal((64, 256)).astype(np.float32) * 1e-5
    quantized = codec.encode(weight)
    target = np.dtype(dtype) if dtype == "float16" else ml_dtypes.bfloat16
    np.testing.assert_array_equal(
        codec.decode(quantized, dtype=dtype).view(np.uint16), codec.decode(quantized).astype(target).view(np.uint16)
    )


@pytest.mark.parametrize("format", ["bf16", "fp16"])
def test_16_bit_formats_are_casts_that_saturate(format: str) -> None:
    element, largest = {"bf16": (ml_dtypes.bfloat16, None), "fp16": (np.float16, 65504.0)}[format]
    rng = np.random.default_rng(3)
    weight = (rng.standard_normal((64, 256)) * np.exp2(rng.integers(-40, 30, (64, 256)))).astype(np.float32)
    clipped = weight if largest is None else np.clip(weight, -largest, largest)
    np.testing.assert_array_equal(get_codec(format).encode(weight).codes, clipped.astype(element).view(np.uint16))
