"""INT4, INT8, MXFP6 and FP8 tensor and block: the bytes of compressed-tensors' own compressors. Exceptions:

===============  ==============================================================================================
bfloat16 scale   it keeps the scale in the dtype it computed in; where we store bfloat16 we round to it before
                 elements (and zero points) are rounded. Here it is given the rounded scale.
zero point       it takes the one under the scale before rounding to bfloat16, we the one under the stored scale: one or
                 two of a hundred differ by one. Both rules are replayed here, and it is given ours.
negative zero    it loses the sign in FP6, as in FP4. Both decode to zero.
zero blocks      other scales, as in ``test_compressed_tensors_bytes.py``; codes are zeros in both.
===============  ==============================================================================================
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams

from prismaquant.codec import Quantized, get_codec
from prismaquant.types import Array

SHAPE = (72, 512)


def scheme(**arguments: Any) -> QuantizationScheme:
    return QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**arguments))


#: Format -> compressor, arguments, shape of a block (0: the whole axis).
FORMATS: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "mxfp6_e2m3": (
        "mxfp6-pack-quantized",
        {"num_bits": 6, "type": "float", "strategy": "group", "group_size": 32, "scale_dtype": torch.uint8},
        (1, 32),
    ),
    "fp8_e4m3_tensor": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "tensor"}, (0, 0)),
    "fp8_e4m3_block": (
        "float-quantized",
        {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]},
        (128, 128),
    ),
    "int8_channel": ("int-quantized", {"num_bits": 8, "type": "int", "strategy": "channel"}, (1, 0)),
}
for group in (32, 64, 128):
    arguments = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": group}
    FORMATS[f"int4_g{group}"] = ("pack-quantized", arguments, (1, group))
    FORMATS[f"int4_g{group}_asym"] = ("pack-quantized", {**arguments, "symmetric": False}, (1, group))


def hard(name: str) -> Array:
    rng = np.random.default_rng(5)
    normal = rng.standard_normal(SHAPE)
    match name:
        case "normal":
            return 0.02 * normal
        case "positive":
            return np.abs(normal) + 0.5
        case "heavy tails":
            return rng.standard_cauchy(SHAPE)
        case "scales over 40 powers of two":
            return normal * np.exp2(rng.integers(-20, 20, (SHAPE[0], SHAPE[1] // 128))).repeat(128, axis=1)
        case "ties":
            ties = rng.integers(-30, 31, SHAPE) / 4.0
            ties[:, ::32], ties[:, 1::32] = 7.5, -7.5
            return ties
    raise ValueError(name)


HARD = ("normal", "positive", "heavy tails", "scales over 40 powers of two", "ties")


def extremes(weight: torch.Tensor, block: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = weight.shape
    height, width = block[0] or rows, block[1] or columns
    parts = [[cell for cell in band.split(width, 1)] for band in weight.split(height, 0)]
    low = torch.stack([torch.stack([cell.min() for cell in band]) for band in parts])
    high = torch.stack([torch.stack([cell.max() for cell in band]) for band in parts])
    return low, high


def compress(weight: Array, format: str, ours: Quantized) -> dict[str, Any]:
    """With its own functions; scales rounded to bfloat16 where we store that, zero points ours."""
    compressor, arguments, block = FORMATS[format]
    made = scheme(**arguments)
    tensor = torch.from_numpy(np.ascontiguousarray(weight, np.float32))
    scale, zero = calculate_qparams(*extremes(tensor, block), made.weights)
    assert ours.scales is not None
    if ours.scales.dtype == np.uint16:
        exact, scale = scale, scale.to(torch.bfloat16)
        np.testing.assert_array_equal(bits(scale), ours.scales)
        scale = scale.float()
    if format == "fp8_e4m3_tensor":
        scale = scale.reshape(1)
    state = {"weight": tensor, "weight_scale": scale}
    if ours.extra is not None:
        mine = zero_points(ours)
        low = np.minimum(extremes(tensor, block)[0].numpy(), 0)
        np.testing.assert_array_equal(mine, np.rint(np.clip(-8 - low / scale.numpy(), -8, 7)))
        np.testing.assert_array_equal(zero.numpy(), np.rint(np.clip(-8 - low / exact.numpy(), -8, 7)))
        state["weight_zero_point"] = torch.from_numpy(mine.astype(np.int8))
    return BaseCompressor.get_value_from_registry(compressor).compress(state, made)


def bits(tensor: torch.Tensor) -> Array:
    return tensor.contiguous().view({1: torch.uint8, 2: torch.uint16, 4: torch.int32}[tensor.itemsize]).numpy()


def zero_points(quantized: Quantized) -> Array:
    assert quantized.extra is not None
    nibbles = (quantized.extra.view(np.uint32)[:, None] >> (4 * np.arange(8, dtype=np.uint32))[None, :, None]) & 15
    return nibbles.reshape(-1, quantized.extra.shape[1])[: quantized.shape[0]].astype(int) - 8


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", HARD)
def test_bytes_are_equal(name: str, format: str) -> None:
    weight = hard(name).astype(np.float32)
    ours = get_codec(format).encode(weight, scale_rule="amax")
    theirs = compress(weight, format, ours)
    packed = bits(theirs["weight_packed" if "weight_packed" in theirs else "weight"])
    if format == "mxfp6_e2m3":
        np.testing.assert_array_equal(ours.scales, bits(theirs["weight_scale"]))
        np.testing.assert_array_equal(unsigned_zero(ours.codes), unsigned_zero(packed))
    else:
        np.testing.assert_array_equal(ours.codes, packed)
    if ours.extra is not None:
        np.testing.assert_array_equal(ours.extra, bits(theirs["weight_zero_point"]))


def unsigned_zero(packed: Array) -> Array:
    """FP6 codes with the sign of zero taken away."""
    every = np.packbits(
        np.unpackbits(packed, axis=1, bitorder="little").reshape(packed.shape[0], -1, 6), axis=-1, bitorder="little"
    )[..., 0]
    return np.where(every == 0x20, 0, every)


@pytest.mark.parametrize("format", [f for f in FORMATS if f.startswith(("int", "mx"))])
def test_it_decodes_what_we_wrote(format: str) -> None:
    """With float32 scales, so that nothing is rounded to 16 bits on the way (MX: bfloat16, which is exact there)."""
    weight = hard("normal").astype(np.float32)
    codec = get_codec(format)
    ours = codec.encode(weight)
    compressor, arguments, _ = FORMATS[format]
    assert ours.scales is not None
    state: dict[str, Any] = {}
    if format.startswith("mx"):
        state["weight_scale"] = torch.from_numpy(ours.scales)
    else:
        state["weight_scale"] = torch.from_numpy(ours.scales.view(np.int16)).view(torch.bfloat16).float()
    if format == "int8_channel":
        state["weight"] = torch.from_numpy(ours.codes.view(np.int8))
    else:
        state["weight_packed"] = torch.from_numpy(ours.codes)
        state["weight_shape"] = torch.tensor(SHAPE)
    if ours.extra is not None:
        state["weight_zero_point"] = torch.from_numpy(ours.extra)
    decoded = BaseCompressor.get_value_from_registry(compressor).decompress(state, scheme(**arguments))["weight"]
    np.testing.assert_array_equal(decoded.float().numpy(), codec.decode(ours))
