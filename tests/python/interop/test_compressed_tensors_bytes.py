"""Our encoder under the ``amax`` rule writes the bytes of compressed-tensors' own compressors, with five exceptions.

===============  ==============================================================================================
negative zero    compressed-tensors loses its sign in FP4 (``x * sign(x)``), we keep it. Both decode to zero.
zero blocks      MX: its scale is 2^-127, ours 1. FP8: its scale is the epsilon of the dtype it computed in, ours that
                 of bfloat16, in which the scale is stored. The codes are zeros in both.
tiny blocks      MX: it writes the exponent 0 (2^-127, subnormal in bfloat16), we stop at 1. FP8: it rounds the
                 scale to 0 and saturates every code; we write zeros.
global scale     it multiplies by the rounded reciprocal (torch's ``c / x``), we divide: one unit in the last place.
bfloat16 input   it computes in the dtype of the weight, so a scale (NVFP4) or a quotient (FP8) is rounded to
                 bfloat16 before it is rounded to E4M3; we compute in float32.
===============  ==============================================================================================

Each is shown below to be exactly that; everything else is equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

from prismaquant.codec import Quantized, get_codec
from prismaquant.types import Array

#: Format -> preset and compressor of compressed-tensors, group size.
FORMATS = {
    "nvfp4": ("NVFP4A16", "nvfp4-pack-quantized", 16),
    "mxfp4": ("MXFP4A16", "mxfp4-pack-quantized", 32),
    "mxfp8_e4m3": ("MXFP8A16", "mxfp8-quantized", 32),
    "fp8_e4m3_channel": ("FP8_DYNAMIC", "float-quantized", 0),
}
FP4 = ("nvfp4", "mxfp4")
MX = ("mxfp4", "mxfp8_e4m3")


@dataclass(frozen=True)
class Theirs:
    """What compressed-tensors wrote: arrays of the stored bits, as in `Quantized`."""

    codes: Array
    scales: Array


def compress(weight: torch.Tensor, format: str, global_scale: float | None = None) -> Theirs:
    """With compressed-tensors' own functions, in the order in which a converter calls them."""
    preset, compressor, group = FORMATS[format]
    scheme = preset_name_to_scheme(preset, ["Linear"])
    blocks = weight.unflatten(1, (-1, group or weight.shape[1]))
    divisor = None if global_scale is None else torch.tensor([global_scale], dtype=torch.float32)
    scale, _ = calculate_qparams(blocks.amin(-1), blocks.amax(-1), scheme.weights, global_scale=divisor)
    if format == "fp8_e4m3_channel":
        scale = scale.to(torch.bfloat16)  # the dtype in which the scales of a bfloat16 model are stored
    state: dict[str, Any] = {"weight": weight, "weight_scale": scale}
    if divisor is not None:
        state["weight_global_scale"] = divisor
    found = BaseCompressor.get_value_from_registry(compressor).compress(state, scheme)
    return Theirs(bits(found.get("weight_packed", found.get("weight"))), bits(found["weight_scale"]))


def bits(tensor: torch.Tensor) -> Array:
    return tensor.contiguous().view(torch.uint8 if tensor.itemsize == 1 else torch.uint16).numpy()


def both(weight: Array, format: str) -> tuple[Theirs, Quantized]:
    """compressed-tensors' bytes and ours, under our global scale."""
    matrix = np.ascontiguousarray(weight, np.float32)
    ours = get_codec(format).encode(matrix, scale_rule="amax")
    return compress(torch.from_numpy(matrix), format, ours.global_scale), ours


def assert_equal(theirs: Theirs, ours: Quantized) -> None:
    assert ours.scales is not None
    np.testing.assert_array_equal(ours.scales, theirs.scales)
    np.testing.assert_array_equal(ours.codes, theirs.codes)


def nibbles(packed: Array) -> Array:
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(packed.shape[0], -1)


def to_e4m3(values: Array) -> Array:
    """Codes of the nearest E4M3 values, saturating, by a third party."""
    return np.clip(values, -448, 448).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)


def blocks_of(weight: Array, format: str) -> Array:
    return weight.reshape(weight.shape[0], -1, FORMATS[format][2] or weight.shape[1])


def hard(name: str) -> Array:
    """Matrices ``[64, 256]`` that come near the limits of the formats, without the exceptions."""
    rng = np.random.default_rng(3)
    shape = (64, 256)
    sign = rng.choice([-1.0, 1.0], shape)
    normal = rng.standard_normal(shape)
    match name:
        case "normal":
            return 0.02 * normal
        case "heavy tails":
            return rng.standard_cauchy(shape)
        case "scales over 40 powers of two":
            return normal * np.exp2(rng.integers(-20, 20, (64, 8))).repeat(32, axis=1)
        case "values over 60 powers of two":
            return sign * np.exp2(rng.uniform(-30, 30, shape))
        case "near the largest float32":
            return normal * 2e37
        case "constant":
            return np.full(shape, 0.3)
        case "ties of FP4":
            ties = rng.choice([0.25, 0.5, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], shape) * sign
            ties[:, ::16] = 6
            return ties
        case "ties of E4M3":
            ties = rng.integers(1, 7168, shape) / 16 * sign
            ties[:, ::16] = 448
            return ties
        case "thresholds of the MX exponent":
            edges = np.float32([1.0, 1.5, 1.75, np.nextafter(np.float32(1.75), 0, dtype=np.float32), 1.9999999])
            limited = np.clip(normal, -1, 1)
            limited[:, ::32] = rng.choice(edges, (64, 8)) * np.exp2(rng.integers(-5, 6, (64, 8)))
            limited[:, 1::32] = 1e-3
            return limited
    raise ValueError(name)


HARD = (
    "normal",
    "heavy tails",
    "scales over 40 powers of two",
    "values over 60 powers of two",
    "near the largest float32",
    "constant",
    "ties of FP4",
    "ties of E4M3",
    "thresholds of the MX exponent",
)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", HARD)
def test_bytes_are_equal(name: str, format: str) -> None:
    assert_equal(*both(hard(name), format))


#: 0, 0.1, -0.2, 0.3, ... 1.5, then -0.07, -0.06, ... 0.08, in bfloat16.
GOLDEN = (
    "0000 3dcd be4d 3e9a becd 3f00 bf1a 3f33 bf4d 3f66 bf80 3f8d bf9a 3fa6 bfb3 3fc0 "
    "bd8f bd76 bd4d bd24 bcf6 bca4 bc24 0000 3c24 3ca4 3cf6 3d24 3d4d 3d76 3d8f 3da4"
)
GOLDEN_ROW = np.array([int(word, 16) for word in GOLDEN.split()], np.uint16).view(ml_dtypes.bfloat16)[None]
GOLDEN_BYTES = {  # codes, scales, global scale
    "nvfp4": ("102a4b5c6d6e7e7fefdebc0931546677", "7e5c", 1792.0),
    "mxfp4": ("102a4b5c6d6e7e7f8988880800000011", "7d", None),
    "mxfp8_e4m3": ("005de56aed70f273f576f879fa7afb7cd9d7d5d2cfcac200424a4f525557595a", "77", None),
    "fp8_e4m3_channel": ("005fe76bef71f375", "5b3b", None),
}


@pytest.mark.parametrize("format", FORMATS)
def test_golden_row(format: str) -> None:
    """A bfloat16 row whose bytes were worked out by hand from the definitions."""
    codes, scales, global_scale = GOLDEN_BYTES[format]
    theirs, ours = both(GOLDEN_ROW, format)
    assert_equal(theirs, ours)
    assert ours.scales is not None
    assert ours.codes.tobytes().hex().startswith(codes)
    assert ours.scales.tobytes().hex() == scales
    assert ours.global_scale == global_scale


def test_golden_values_of_nvfp4() -> None:
    codec = get_codec("nvfp4")
    decoded = codec.decode(codec.encode(GOLDEN_ROW, scale_rule="amax"))[0, :8]
    np.testing.assert_array_equal(decoded, [0, 0.125, -0.25, 0.25, -0.375, 0.5, -0.5, 0.75])


@pytest.mark.parametrize(
    ("value", "code"),
    [(2**-9, 1), (2**-10, 0), (1.01 * 2**-10, 1), (1.0625, 0x38), (1.1875, 0x3A), (-0.0, 0x80)],
)
def test_golden_e4m3(value: float, code: int) -> None:
    """Under a scale of one, which 448 in the same row makes."""
    quantized = get_codec("fp8_e4m3_channel").encode(np.array([[448, value]], np.float32))
    assert quantized.scales is not None
    assert quantized.scales.item() == 0x3F80
    assert quantized.codes[0, 1] == code


@pytest.mark.parametrize("format", FORMATS)
def test_exception_negative_zero(format: str) -> None:
    weight = hard("normal")
    weight[:, 5::7] = -0.0
    theirs, ours = both(weight, format)
    if format not in FP4:
        assert_equal(theirs, ours)
        return
    np.testing.assert_array_equal(ours.scales, theirs.scales)
    differ = nibbles(ours.codes) != nibbles(theirs.codes)
    np.testing.assert_array_equal(differ, (weight == 0) & np.signbit(weight))
    assert set(nibbles(ours.codes)[differ]) == {8}
    assert set(nibbles(theirs.codes)[differ]) == {0}


@pytest.mark.parametrize("format", FORMATS)
def test_exception_zero_blocks(format: str) -> None:
    weight = hard("normal")
    weight[::2] = 0
    theirs, ours = both(weight, format)
    np.testing.assert_array_equal(ours.codes, theirs.codes)
    assert ours.scales is not None
    if format == "nvfp4":
        np.testing.assert_array_equal(ours.scales, theirs.scales)
        assert set(ours.scales[::2].flat) == {0x20}
        return
    np.testing.assert_array_equal(ours.scales[1::2], theirs.scales[1::2])
    expected = (127, 0) if format in MX else (0x3C00, 0x3400)  # FP8: 2^-7 and 2^-23 in bfloat16
    assert (set(ours.scales[::2].flat), set(theirs.scales[::2].flat)) == ({expected[0]}, {expected[1]})


@pytest.mark.parametrize("format", MX)
def test_exception_tiny_blocks_mx(format: str) -> None:
    """Largest magnitudes around the one whose exponent would be 0. Under the exponent 1 our codes are the nearest."""
    largest = 6.0 if format == "mxfp4" else 448.0
    weight = np.clip(hard("normal") * 20, -1, 1)
    weight[:, ::32] = 1
    weight *= largest * np.exp2(np.arange(-131.0, -123.0)).repeat(8)[:, None]
    theirs, ours = both(weight, format)
    assert ours.scales is not None
    np.testing.assert_array_equal(ours.scales, np.maximum(theirs.scales, 1))
    stopped = (theirs.scales < 1).any(axis=1)
    assert 0 < stopped.mean() < 1
    np.testing.assert_array_equal(ours.codes[~stopped], theirs.codes[~stopped])
    element = ml_dtypes.float4_e2m1fn if format == "mxfp4" else ml_dtypes.float8_e4m3fn
    nearest = (weight.astype(np.float32)[stopped] * 2.0**126).astype(element).view(np.uint8)
    codes = nibbles(ours.codes) if format == "mxfp4" else ours.codes
    np.testing.assert_array_equal(codes[stopped], nearest)


def test_exception_tiny_rows_fp8() -> None:
    """Rows whose scale is below half of the smallest bfloat16."""
    weight = np.where(np.arange(256) % 2, 1e-40, -1e-42)[None].repeat(4, axis=0)
    theirs, ours = both(weight, "fp8_e4m3_channel")
    assert ours.scales is not None
    assert (set(theirs.scales.flat), set(ours.scales.flat)) == ({0}, {0x3C00})
    assert (set(theirs.codes.flat), set(ours.codes.flat)) == ({0x7E, 0xFE}, {0, 0x80})


def test_exception_global_scale() -> None:
    rng = np.random.default_rng(4)
    differing = 0
    for amax in np.exp2(rng.uniform(-20, 20, 400)).astype(np.float32):
        theirs = generate_gparam(torch.tensor(-amax), torch.tensor(amax)).item()
        ours = get_codec("nvfp4").encode(np.full((1, 16), amax), scale_rule="amax").global_scale
        assert ours == np.float32(2688) / amax
        assert theirs == np.float32(1) / amax * np.float32(2688)
        differing += theirs != ours
        assert abs(theirs - ours) <= np.spacing(np.float32(ours))
    assert 0 < differing < 200


@pytest.mark.parametrize("format", FORMATS)
def test_exception_bfloat16_weights(format: str) -> None:
    weight = hard("normal").astype(ml_dtypes.bfloat16)
    exact = weight.astype(np.float32)
    ours = get_codec(format).encode(weight, scale_rule="amax")
    theirs = compress(torch.from_numpy(exact).to(torch.bfloat16), format, ours.global_scale)
    assert_equal(compress(torch.from_numpy(exact), format, ours.global_scale), ours)
    if format in MX:
        assert_equal(theirs, ours)
    elif format == "nvfp4":
        twice = (np.abs(blocks_of(exact, format)).max(-1) / np.float32(6)).astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(theirs.scales, to_e4m3(np.float32(ours.global_scale) * twice.astype(np.float32)))
        same = (theirs.scales == ours.scales).repeat(8, axis=1)
        assert 0 < (~same).mean() < 0.1
        np.testing.assert_array_equal(theirs.codes[same], ours.codes[same])
    else:
        np.testing.assert_array_equal(theirs.scales, ours.scales)
        scales = theirs.scales.view(ml_dtypes.bfloat16).astype(np.float32)
        twice = (exact / scales).astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(theirs.codes, to_e4m3(twice.astype(np.float32)))
        np.testing.assert_array_equal(ours.codes, to_e4m3(exact / scales))
        assert 0 < (theirs.codes != ours.codes).mean() < 0.1
