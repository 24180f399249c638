"""The codecs as a torch user would write them: what `bench_peers.py` compares with, eager and compiled.

Nothing is checked, and blocks of zeros are not thought of.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "decode_fp4_mx",
    "decode_fp8_channel",
    "decode_fp8_mx",
    "decode_nvfp4",
    "encode_fp8_channel",
    "encode_fp8_mx",
    "encode_int4",
    "encode_mxfp4",
    "encode_nvfp4",
]

_MIDPOINTS = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
_FP4 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
#: Both values of a byte of FP4 codes, float32 ``[256, 2]``.
_PAIRS = torch.stack(
    [torch.cat([_FP4, -_FP4]).repeat(16), torch.cat([_FP4, -_FP4]).repeat_interleave(16)], dim=1
).contiguous()


def _pack_fp4(scaled: Tensor, shape: torch.Size) -> Tensor:
    magnitude = scaled.abs()
    codes = (scaled < 0).to(torch.uint8) << 3
    for below, midpoint in enumerate(_MIDPOINTS):  # ties to even codes
        codes = codes + (magnitude > midpoint if below % 2 == 0 else magnitude >= midpoint)
    codes = codes.reshape(shape)
    return codes[:, ::2] | (codes[:, 1::2] << 4)


def _mx_scale(blocks: Tensor, largest_exponent: int) -> tuple[Tensor, Tensor]:
    """E8M0 codes and scales: the exponent of the largest magnitude rounded to one bit of mantissa."""
    bits = blocks.abs().amax(-1, keepdim=True).view(torch.int32)
    exponent = ((bits + (1 << 21)) >> 23) - largest_exponent
    exponent = exponent.clamp(1, 254)
    return exponent.to(torch.uint8), (exponent << 23).view(torch.float32)


def encode_nvfp4(weight: Tensor, global_scale: float) -> tuple[Tensor, Tensor]:
    """Codes uint8 ``[rows, columns / 2]`` and E4M3 scales of ``[rows, columns]``."""
    blocks = weight.float().unflatten(1, (-1, 16))
    scales = (blocks.abs().amax(-1, keepdim=True) / 6 * global_scale).clamp(max=448).to(torch.float8_e4m3fn)
    return _pack_fp4(blocks / (scales.float() / global_scale), weight.shape), scales


def decode_nvfp4(codes: Tensor, scales: Tensor, global_scale: float) -> Tensor:
    values = torch.nn.functional.embedding(codes.int(), _PAIRS).view(codes.shape[0], -1, 16)
    return (values * (scales.float() / global_scale)).flatten(1)


def encode_mxfp4(weight: Tensor) -> tuple[Tensor, Tensor]:
    blocks = weight.float().unflatten(1, (-1, 32))
    exponents, scale = _mx_scale(blocks, 2)
    return _pack_fp4(blocks / scale, weight.shape), exponents


def decode_fp4_mx(codes: Tensor, exponents: Tensor) -> Tensor:
    values = torch.nn.functional.embedding(codes.int(), _PAIRS).view(codes.shape[0], -1, 32)
    return (values * (exponents.int() << 23).view(torch.float32)).flatten(1)


def encode_fp8_mx(weight: Tensor) -> tuple[Tensor, Tensor]:
    blocks = weight.float().unflatten(1, (-1, 32))
    exponents, scale = _mx_scale(blocks, 8)
    return (blocks / scale).clamp(-448, 448).to(torch.float8_e4m3fn).flatten(1), exponents


def decode_fp8_mx(codes: Tensor, exponents: Tensor) -> Tensor:
    values = codes.float().unflatten(1, (-1, 32))
    return (values * (exponents.int() << 23).view(torch.float32)).flatten(1)


def encode_fp8_channel(weight: Tensor) -> tuple[Tensor, Tensor]:
    weight = weight.float()
    scales = (weight.abs().amax(1, keepdim=True) / 448).to(torch.bfloat16)
    return (weight / scales.float()).clamp(-448, 448).to(torch.float8_e4m3fn), scales


def decode_fp8_channel(codes: Tensor, scales: Tensor) -> Tensor:
    return codes.float() * scales.float()


def encode_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric, groups of 128: codes int32 ``[rows, columns / 8]``, column 0 in the lowest bits."""
    blocks = weight.float().unflatten(1, (-1, 128))
    scales = (blocks.abs().amax(-1, keepdim=True) / 7.5).to(torch.bfloat16)
    codes = (blocks / scales.float()).round().clamp(-8, 7).to(torch.int32) + 8
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    return (codes.reshape(weight.shape[0], -1, 8) << shifts).sum(-1, dtype=torch.int32), scales
