"""MXFP4 and NVFP4 beside gguf-py, which stores them in blocks of its own layout. Differences:

===============  ==============================================================================================
layout           MXFP4: byte j of a block holds elements j and j + 16; NVFP4: blocks of 64 with four scales, byte j of
                 a group holds elements j and j + 8. Ours: elements 2j and 2j + 1.
MXFP4 scale      the ``floor`` rule, from ``log2`` in float32: just below large powers of two it is one higher. Zero
                 blocks have the code 0, ours 127.
MXFP4 ties       go to the smaller magnitude, ours to the even code; a zero is always positive.
NVFP4 scale      ties upwards, ours to even; from 248 on it is 448, and between 7.5 and 8 of the smallest steps it is 7
                 (gguf-py 0.19), ours the nearest.
NVFP4 global     is kept in another tensor; its blocks decode as ours under a global scale of 1.
===============  ==============================================================================================
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prismaquant.codec import Quantized, get_codec
from prismaquant.types import Array

quants: Any = pytest.importorskip("gguf.quants", reason="gguf is not installed")
pytestmark = pytest.mark.skipif(not hasattr(quants, "NVFP4"), reason="this gguf has no NVFP4")


def nibbles(quantized: Quantized) -> Array:
    return np.stack([quantized.codes & 15, quantized.codes >> 4], axis=-1).reshape(quantized.shape)


def in_blocks(quantized: Quantized, group: int, groups: int) -> Array:
    """Our bytes in gguf's layout: the scales of a block of ``groups`` groups, then its codes."""
    assert quantized.scales is not None
    codes = nibbles(quantized).reshape(-1, groups, 2, group // 2)
    packed = (codes[:, :, 0] | codes[:, :, 1] << 4).reshape(len(codes), -1)
    return np.concatenate([quantized.scales.reshape(-1, groups), packed], axis=1)


def normal(*shape: int) -> Array:
    return np.random.default_rng(6).standard_normal(shape).astype(np.float32)


def mxfp4(weight: Array) -> tuple[Array, Array]:
    """Scales and codes by gguf-py, one row per block, codes in the order of the elements."""
    found = quants.MXFP4.quantize_blocks(weight.reshape(-1, 32))
    packed = found[:, 1:]
    return found[:, 0], np.concatenate([packed & 15, packed >> 4], axis=1)


def test_mxfp4_decodes_alike() -> None:
    weight = normal(256, 512) * np.exp2(np.random.default_rng(7).integers(-40, 40, (256, 1))).astype(np.float32)
    codec = get_codec("mxfp4")
    for rule in ("amax", "floor", "ceil", "sweep"):
        quantized = codec.encode(weight, scale_rule=rule)
        theirs = quants.MXFP4.dequantize_blocks(in_blocks(quantized, 32, 1))
        np.testing.assert_array_equal(codec.decode(quantized), theirs.reshape(weight.shape))


def test_mxfp4_encodes_alike_by_the_floor_rule() -> None:
    weight = normal(256, 512)
    ours = get_codec("mxfp4").encode(weight, scale_rule="floor")
    scales, codes = mxfp4(weight)
    assert ours.scales is not None
    np.testing.assert_array_equal(ours.scales.reshape(-1), scales)
    mine = nibbles(ours).reshape(-1, 32)
    differ = mine != codes
    np.testing.assert_array_equal(differ, mine == 8)  # negative zeros
    assert set(codes[differ]) == {0}


def test_mxfp4_exception_ties() -> None:
    ties = np.float32([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    block = np.concatenate([ties, -ties, np.zeros(17), [4]]).astype(np.float32)[None]
    ours, (_, theirs) = get_codec("mxfp4").encode(block, scale_rule="floor"), mxfp4(block)
    np.testing.assert_array_equal(nibbles(ours)[0, :14], [0, 2, 2, 4, 4, 6, 6, 8, 10, 10, 12, 12, 14, 14])
    np.testing.assert_array_equal(theirs[0, :14], [0, 1, 2, 3, 4, 5, 6, 0, 9, 10, 11, 12, 13, 14])


def test_mxfp4_exception_exponents() -> None:
    below = np.full((1, 32), np.nextafter(np.float32(2.0**30), np.float32(0)))
    zeros = np.zeros((1, 32), np.float32)
    for block, mine, other in ((below, 127 + 29 - 2, 127 + 30 - 2), (zeros, 127, 0)):
        quantized = get_codec("mxfp4").encode(block, scale_rule="floor")
        assert quantized.scales is not None
        assert (quantized.scales.item(), mxfp4(block)[0].item()) == (mine, other)


@pytest.mark.parametrize("rule", ["amax", "sweep", "four_over_six"])
def test_nvfp4_decodes_alike(rule: str) -> None:
    weight = normal(64, 512) * np.exp2(np.random.default_rng(8).integers(-6, 9, (64, 1))).astype(np.float32)
    codec = get_codec("nvfp4")
    quantized = codec.encode(weight, scale_rule=rule, global_scale=1.0)
    theirs = quants.NVFP4.dequantize_blocks(in_blocks(quantized, 16, 4))
    np.testing.assert_array_equal(codec.decode(quantized), theirs.reshape(weight.shape))


def test_nvfp4_scales() -> None:
    peaks = np.abs(normal(4096)) * np.exp2(np.random.default_rng(9).integers(-6, 9, 4096)).astype(np.float32)
    peaks = np.concatenate([peaks, np.float32([6 * 1.0625, 6 * 1.1875, 6 * 300])])
    scale = peaks / np.float32(6)
    blocks = peaks[:, None] * np.eye(1, 16, dtype=np.float32)
    found = get_codec("nvfp4").encode(blocks, scale_rule="amax", global_scale=1.0).scales
    assert found is not None
    ours, theirs = found[:, 0].astype(int), quants.NVFP4.fp32_to_ue4m3(scale).astype(int)
    gap = (scale >= 7.5 / 512) & (scale < 8 / 512)
    assert (set(ours[gap]), set(theirs[gap])) == ({8}, {7})
    tie = scale.view(np.uint32) & 0xFFFFF == 0x80000
    plain = (scale < 248) & (theirs != 0) & ~gap & ~tie  # ours is never zero
    np.testing.assert_array_equal(ours[plain], theirs[plain])
    assert (ours[-3:].tolist(), theirs[-3:].tolist()) == ([0x38, 0x3A, 0x79], [0x39, 0x3A, 0x7E])
