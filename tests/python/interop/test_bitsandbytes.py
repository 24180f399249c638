"""NF4 codes and scales are those of bitsandbytes, which sees the matrix flattened. Differences:

===============  ==============================================================================================
ties             it multiplies by the reciprocal of the scale, we divide: weights within an ulp of a midpoint between
                 two entries may go to the other neighbour (none in a million normal deviates here).
zero blocks      its scale is 0, ours 2^-126; both decode to zeros.
offset           of nested scales: it takes torch's float32 mean, ours is the mean in float64, rounded once.
nested codes     by reciprocal there, by quotient here: next neighbours at ties. (With nested scales both round elements
                 under the scales as they were before.)
===============  ==============================================================================================
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from prismaquant.codec import get_codec

functional: Any = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")


def test_codes_and_scales_are_equal() -> None:
    weight = torch.from_numpy(np.random.default_rng(1).standard_normal((256, 4096)).astype(np.float32))
    packed, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    ours = get_codec("nf4").encode(weight)
    np.testing.assert_array_equal(ours.codes.reshape(-1, 1), packed.numpy())
    np.testing.assert_array_equal(ours.scales.reshape(-1), state.absmax.numpy())
    np.testing.assert_array_equal(
        get_codec("nf4").decode(ours), functional.dequantize_4bit(packed, state, quant_type="nf4").numpy()
    )


def test_the_code_book_is_equal() -> None:
    every = np.arange(16, dtype=np.uint8)
    ours = get_codec("nf4").encode(np.zeros((1, 64), np.float32))
    ours.scales[:] = 1
    ours.codes[0, :8] = every[::2] << 4 | every[1::2]
    table = functional.get_4bit_type("nf4", device="cpu").numpy()
    np.testing.assert_array_equal(get_codec("nf4").decode(ours)[0, :16], table)


def test_nested_scales() -> None:
    weight = torch.from_numpy(np.random.default_rng(2).standard_normal((128, 4096)).astype(np.float32))
    packed, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
    ours = get_codec("nf4_double").encode(weight)
    np.testing.assert_array_equal(ours.codes.reshape(-1, 1), packed.numpy())
    assert ours.extra[0, 0] == pytest.approx(state.offset.item(), rel=1e-6)
    np.testing.assert_allclose(ours.extra[0, 1:], state.state2.absmax.numpy(), rtol=1e-5)
    steps = np.abs(ours.scales.reshape(-1).astype(int) - state.absmax.numpy().astype(int))
    assert steps.max() <= 1
    assert (steps != 0).mean() < 5e-3
    theirs = functional.dequantize_4bit(packed, state, quant_type="nf4").numpy()
    same = (steps == 0).repeat(64).reshape(weight.shape)
    np.testing.assert_allclose(get_codec("nf4_double").decode(ours)[same], theirs[same], rtol=1e-5)


def test_the_dynamic_map_is_equal() -> None:
    codec = get_codec("nf4_double")
    quantized = codec.encode(np.ones((1, 64 * 256), np.float32))
    quantized.scales[0] = np.arange(256)
    quantized.extra[0] = [0, 1]  # no offset, scale one: a block of ones decodes to its scale
    quantized.codes[:] = 0xFF
    np.testing.assert_array_equal(codec.decode(quantized)[0, ::64], functional.create_dynamic_map().numpy())


def test_zero_blocks() -> None:
    weight = np.random.default_rng(3).standard_normal((4, 256)).astype(np.float32)
    weight[:, 64:128] = 0
    packed, state = functional.quantize_4bit(torch.from_numpy(weight), blocksize=64, quant_type="nf4")
    ours = get_codec("nf4").encode(weight)
    np.testing.assert_array_equal(ours.codes.reshape(-1, 1), packed.numpy())
    assert set(ours.scales[:, 1]) == {np.float32(2.0**-126)}
    assert set(state.absmax.numpy()[1::4]) == {0}
