"""Element rounding, judged by a third party: the casts of ml_dtypes.

Blocks are built so that their scale is exactly 1 (or another power of two); then codes are casts. The differences:

===========  ===================================  =========================================
input        our codec                            ml_dtypes
===========  ===================================  =========================================
E4M3 > 464   saturates to 448                     NaN (the format has no infinity)
E2M1 > 6     saturates to 6                       saturates to 6
bf16 > max   saturates to the largest finite      infinity
NaN, inf     refused by `encode`                  NaN, infinity, or a number
===========  ===================================  =========================================
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from prismaquant.codec import Quantized, get_codec
from prismaquant.types import Array

E4M3, E2M1, BF16 = ml_dtypes.float8_e4m3fn, ml_dtypes.float4_e2m1fn, ml_dtypes.bfloat16


def finite_bfloat16() -> Array:
    """All finite bfloat16 numbers, as float32."""
    numbers = np.arange(1 << 16, dtype=np.uint16).view(BF16).astype(np.float32)
    return numbers[np.isfinite(numbers)]


def random_float32(count: int, low: float, high: float) -> Array:
    """Bit patterns drawn evenly, so every binade between ``low`` and ``high`` counts alike; both signs."""
    rng = np.random.default_rng(11)
    ends = np.array([low, high], np.float32).view(np.uint32)
    return rng.integers(ends[0], ends[1], count, dtype=np.uint32).view(np.float32) * rng.choice(
        np.array([-1, 1], np.float32), count
    )


def ties(dtype: type, codes: int) -> Array:
    """The middles between neighbours, and the float32 numbers next to them, of both signs."""
    grid = np.arange(codes, dtype=np.uint8).view(dtype).astype(np.float32)
    middles = (grid[1:] + grid[:-1]) / 2
    near = np.concatenate([middles, np.nextafter(middles, np.float32(0)), np.nextafter(middles, np.float32(1e9))])
    return np.concatenate([near, -near])


def in_blocks(numbers: Array, group: int, anchor: float) -> Array:
    """Rows of ``group`` numbers, the first of each being ``anchor``, which decides the scale."""
    numbers = np.concatenate([numbers, np.zeros(-len(numbers) % (group - 1), np.float32)]).reshape(-1, group - 1)
    return np.concatenate([np.full((len(numbers), 1), anchor, np.float32), numbers], axis=1)


def nibbles(quantized: Quantized) -> Array:
    return np.stack([quantized.codes & 15, quantized.codes >> 4], axis=-1).reshape(quantized.shape)


@pytest.mark.parametrize("rule", ["amax", "sweep"])
def test_e4m3_elements_of_mxfp8(rule: str) -> None:
    numbers = np.concatenate([finite_bfloat16(), random_float32(300_000, 1e-6, 447.9), ties(E4M3, 0x7E)])
    rows = in_blocks(numbers[np.abs(numbers) < 448], 32, 447.0)
    quantized = get_codec("mxfp8_e4m3").encode(rows, scale_rule=rule)
    assert quantized.scales is not None
    if rule == "sweep":  # may move a block up: an exact power of two
        assert (quantized.scales <= 128).all()
        rows = rows / np.exp2(quantized.scales.astype(np.float32) - 127)
    else:
        assert (quantized.scales == 127).all()
    np.testing.assert_array_equal(quantized.codes, rows.astype(E4M3).view(np.uint8))


def test_e2m1_elements_of_mxfp4() -> None:
    numbers = np.concatenate([finite_bfloat16(), random_float32(300_000, 1e-3, 6.9), ties(E2M1, 8)])
    rows = in_blocks(numbers[np.abs(numbers) < 7], 32, 4.0)
    quantized = get_codec("mxfp4").encode(rows, scale_rule="amax")
    assert quantized.scales is not None
    assert (quantized.scales == 127).all()
    np.testing.assert_array_equal(nibbles(quantized), rows.astype(E2M1).view(np.uint8))


def test_e2m1_elements_of_nvfp4_saturate_like_ml_dtypes() -> None:
    """The largest block scale over a global scale of 448 is 1, whatever the magnitudes are."""
    rows = in_blocks(np.concatenate([finite_bfloat16(), random_float32(300_000, 1e-3, 3e38)]), 16, 6.0)
    quantized = get_codec("nvfp4").encode(rows, scale_rule="amax", global_scale=448.0)
    assert quantized.scales is not None
    assert (quantized.scales == 0x7E).all()
    np.testing.assert_array_equal(nibbles(quantized), rows.astype(E2M1).view(np.uint8))


def test_block_scales_of_nvfp4_are_e4m3_casts() -> None:
    """With a global scale of 1 the scale of a block is the cast of amax / 6; what ml_dtypes makes NaN saturates."""
    peaks = np.concatenate([finite_bfloat16(), random_float32(100_000, 1e-4, 6000.0)])
    wanted = np.abs(peaks) / np.float32(6)
    rows = peaks[:, None] * np.eye(1, 16, dtype=np.float32)
    found = get_codec("nvfp4").encode(rows, scale_rule="amax", global_scale=1.0).scales
    assert found is not None
    cast = wanted.astype(E4M3).view(np.uint8)
    assert (wanted > 464).any()
    expected = np.where(wanted > 464, 0x7E, np.where(cast == 0, 0x20, cast))  # no stored scale is zero: 0.125
    np.testing.assert_array_equal(found[:, 0], expected)


def test_scales_of_fp8_are_bfloat16_casts() -> None:
    peaks = np.concatenate([finite_bfloat16(), random_float32(100_000, 1e-37, 3e38)])[:, None]
    found = get_codec("fp8_e4m3_channel").encode(peaks).scales
    expected = (np.abs(peaks) / np.float32(448)).astype(BF16).view(np.uint16)
    np.testing.assert_array_equal(found, np.where(expected == 0, 0x3C00, expected))  # 2^-7


def test_e4m3_elements_saturate_where_ml_dtypes_gives_nan() -> None:
    """A subnormal bfloat16 scale can be rounded down far enough for quotients above 464."""
    peak = np.float32(448 * 1.4 * 2.0**-133)
    quantized = get_codec("fp8_e4m3_tensor").encode(np.array([[peak, -peak]]))
    assert quantized.scales is not None
    assert quantized.scales.tolist() == [[1]]
    assert np.isnan((peak / np.float32(2.0**-133)).astype(E4M3))
    assert quantized.codes.tolist() == [[0x7E, 0xFE]]


def test_bf16_elements() -> None:
    numbers = np.concatenate([finite_bfloat16(), random_float32(500_000, 0.0, 3.4e38)])[None]
    codes = get_codec("bf16").encode(numbers).codes
    cast = numbers.astype(BF16)
    overflow = np.isinf(cast)
    assert overflow.any()
    np.testing.assert_array_equal(codes[~overflow], cast[~overflow].view(np.uint16))
    assert set(codes[overflow]) == {0x7F7F, 0xFF7F}


def test_decoding_of_every_element_code() -> None:
    one = np.array([[127]], np.uint8)
    all8 = np.arange(256, dtype=np.uint8)
    rows = all8.reshape(8, 32)
    decoded = get_codec("mxfp8_e4m3").decode(Quantized("mxfp8_e4m3", (8, 32), rows, one.repeat(8, axis=0), None))
    np.testing.assert_array_equal(decoded, rows.view(E4M3).astype(np.float32))
    packed = np.resize(all8[:16:2] | (all8[1:16:2] << 4), (1, 16))
    decoded = get_codec("mxfp4").decode(Quantized("mxfp4", (1, 32), packed, one, None))
    np.testing.assert_array_equal(decoded, np.resize(all8[:16].view(E2M1).astype(np.float32), (1, 32)))
    all16 = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    decoded = get_codec("bf16").decode(Quantized("bf16", (256, 256), all16, None, None))
    np.testing.assert_array_equal(decoded, all16.view(BF16).astype(np.float32))


@pytest.mark.parametrize(("format", "dtype"), [("mxfp8_e4m3", E4M3), ("mxfp4", E2M1), ("bf16", BF16)])
def test_every_finite_element_code_survives_decode_and_encode(format: str, dtype: type) -> None:
    words = np.arange(1 << (16 if dtype is BF16 else 8 if dtype is E4M3 else 4))
    numbers = words.astype(np.uint16 if dtype is BF16 else np.uint8).view(dtype).astype(np.float32)
    anchor = {E4M3: 448.0, E2M1: 6.0, BF16: 1.0}[dtype]
    rows = in_blocks(numbers[np.isfinite(numbers)], 32, anchor)
    codec = get_codec(format)
    # The sweep finds the scale without error; the amax rule of MX moves a block up whose amax is 1.75 * 2^e, as 448 is.
    quantized = codec.encode(rows, scale_rule="sweep")
    decoded = codec.decode(quantized)
    np.testing.assert_array_equal(decoded.view(np.uint32), rows.view(np.uint32))
    np.testing.assert_array_equal(codec.encode(decoded, scale_rule="sweep").codes, quantized.codes)
