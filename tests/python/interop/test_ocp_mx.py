"""The ``floor`` rule is the conversion of the OCP MX text, for all six formats. Differences:

===============  ==============================================================================================
exponent -127    the text allows E8M0 code 0 (2^-127), which is subnormal in float32; we stop at code 1.
zero blocks      the text leaves the scale open (microxcaling: the smallest); ours is 1. Elements are zeros.
NaN, infinity    the text leaves overflow of the input to the implementation; we refuse both.
===============  ==============================================================================================
"""

from __future__ import annotations

import numpy as np
import pytest

from prismaquant.codec import get_codec
from prismaquant.types import Array
from support.ocp_mx import GRIDS, convert


def matrices(format: str) -> dict[str, Array]:
    rng = np.random.default_rng(5)
    shape = (64, 256)
    normal = rng.standard_normal(shape)
    grid = np.unique(np.abs(GRIDS[format]))
    ties = rng.choice((grid[1:] + grid[:-1]) / 2, shape)
    ties[:, ::32] = grid.max()
    saturated = rng.uniform(-1, 1, shape)
    saturated[:, ::32] = np.nextafter(np.float32(2), np.float32(0))  # the top of a binade: beyond the largest element
    wide = normal * np.exp2(rng.integers(-30, 30, shape))
    blocks = normal * np.exp2(rng.integers(-90, 90, (64, 8))).repeat(32, axis=1)
    found = {"normal": normal, "ties": ties, "saturated": saturated, "wide": wide, "blocks": blocks}
    return {name: matrix.astype(np.float32) for name, matrix in found.items()}


@pytest.mark.parametrize("format", GRIDS)
def test_floor_is_the_ocp_conversion(format: str) -> None:
    codec = get_codec(format)
    for name, matrix in matrices(format).items():
        expected = convert(matrix, format)
        quantized = codec.encode(matrix, scale_rule="floor")
        assert quantized.scales is not None
        np.testing.assert_array_equal(quantized.scales.astype(int) - 127, expected.exponents, err_msg=name)
        np.testing.assert_array_equal(codec.decode(quantized), expected.decoded, err_msg=name)


@pytest.mark.parametrize("format", GRIDS)
def test_exception_smallest_exponent(format: str) -> None:
    largest = np.frexp(GRIDS[format].max())[1] - 1
    matrix = np.full((1, 32), 2.0 ** (largest - 127), np.float32)
    assert convert(matrix, format).exponents.item() == -127
    quantized = get_codec(format).encode(matrix, scale_rule="floor")
    assert quantized.scales is not None
    assert quantized.scales.item() == 1
    np.testing.assert_array_equal(get_codec(format).decode(quantized), matrix)


@pytest.mark.parametrize("format", GRIDS)
def test_exception_zero_blocks(format: str) -> None:
    codec = get_codec(format)
    quantized = codec.encode(np.zeros((1, 32), np.float32), scale_rule="floor")
    assert quantized.scales is not None
    assert quantized.scales.item() == 127
    assert not codec.decode(quantized).any()
