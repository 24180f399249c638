"""The one table from a scheme to its form on disk: compressed-tensors arguments, and tensors by name, dtype and shape.

A new scheme is one entry of `_STORAGE` (how its weight format is stored) and one of `_ARGUMENTS` (what the engine is
told). Weights are stored by these rules of compressed-tensors: global scales are divisors in F32 ``[1]``, codes of four
bits lie two to a byte with the even column in the low half, ``input_global_scale = 448 * 6 / max |x|``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from prismaquant.codec import Quantized
from prismaquant.errors import NumericError, ShapeError
from prismaquant.formats import BF16, format_info, get_scheme, list_schemes

if TYPE_CHECKING:
    from prismaquant.types import Array

__all__ = [
    "ARRAY_DTYPES",
    "WEIGHT_PARTS",
    "GroupArguments",
    "as_array",
    "expected",
    "group_arguments",
    "input_global_scale",
    "nbytes",
    "quantized_schemes",
    "tensors",
    "unpack",
]

#: numpy dtype that holds the stored bits of each safetensors dtype we write, little endian.
ARRAY_DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("u1"),
    "F8_E4M3": np.dtype("u1"),
    "BF16": np.dtype("<u2"),
    "F32": np.dtype("<f4"),
}

#: Every suffix under which a part of a Linear's weight can be stored (its bias is not one of them).
WEIGHT_PARTS = ("weight", "weight_packed", "weight_scale", "weight_global_scale", "input_global_scale")

_GLOBAL_SCALE = "weight_global_scale"
_INPUT_GLOBAL_SCALE = "input_global_scale"


@dataclass(frozen=True, slots=True)
class _Storage:
    """Suffix and safetensors dtype of the codes and of the block scales of one weight format."""

    codes: tuple[str, str]
    scales: tuple[str, str] | None = None


_STORAGE = {
    "nvfp4": _Storage(("weight_packed", "U8"), ("weight_scale", "F8_E4M3")),
    "fp8_e4m3_channel": _Storage(("weight", "F8_E4M3"), ("weight_scale", "BF16")),
    "bf16": _Storage(("weight", "BF16")),
}


@dataclass(frozen=True, slots=True)
class GroupArguments:
    """What a config group says about a scheme.

    Attributes
    ----------
    format
        Name of the concrete compressor, never ``"mixed-precision"``.
    weights, input_activations
        Quantization arguments, defaults written out. ``scale_dtype`` is present only where the scales have one of their
        own: readers before compressed-tensors 0.13 refuse the key, newer ones need it there.
    """

    format: str
    weights: Mapping[str, Any]
    input_activations: Mapping[str, Any] | None


_FP4_BLOCKS = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "symmetric": True}
_E4M3_SCALES = {"scale_dtype": "torch.float8_e4m3fn"}
_NVFP4_WEIGHTS = {**_FP4_BLOCKS, "dynamic": False, **_E4M3_SCALES}
_FP8 = {"num_bits": 8, "type": "float"}

_ARGUMENTS = {
    "NVFP4A16": GroupArguments("nvfp4-pack-quantized", _NVFP4_WEIGHTS, None),
    "NVFP4": GroupArguments(
        "nvfp4-pack-quantized",
        _NVFP4_WEIGHTS,
        {**_FP4_BLOCKS, "dynamic": "local", **_E4M3_SCALES, "observer": "static_minmax"},
    ),
    "FP8_DYNAMIC": GroupArguments(
        "float-quantized",
        {**_FP8, "strategy": "channel", "symmetric": True, "dynamic": False},
        {**_FP8, "strategy": "token", "symmetric": True, "dynamic": True},
    ),
}


def quantized_schemes() -> tuple[str, ...]:
    """Names of the schemes that need a config group (all but BF16), in the order in which groups are numbered."""
    return tuple(name for name in list_schemes() if name != BF16)


def group_arguments(scheme: str) -> GroupArguments:
    """Arguments of the config group of ``scheme``, which is one of `quantized_schemes`."""
    return _ARGUMENTS[scheme]


def expected(scheme: str, rows: int, columns: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Exactly the tensors that a Linear of shape ``[rows, columns]`` has on disk: suffix -> (safetensors dtype, shape).

    Raises
    ------
    FormatError
        If there is no such scheme.
    """
    facts = get_scheme(scheme)
    info = format_info(facts.weight_format)
    storage = _STORAGE[facts.weight_format]
    suffix, dtype = storage.codes
    per_item = 8 * ARRAY_DTYPES[dtype].itemsize // info.element_bits
    found: dict[str, tuple[str, tuple[int, ...]]] = {suffix: (dtype, (rows, columns // per_item))}
    if storage.scales is not None:
        suffix, dtype = storage.scales
        block = (info.block_rows or rows, info.block_columns or columns)
        found[suffix] = (dtype, (-(-rows // block[0]), -(-columns // block[1])))
    if info.has_global_scale:
        found[_GLOBAL_SCALE] = ("F32", (1,))
    if facts.needs_input_amax:
        found[_INPUT_GLOBAL_SCALE] = ("F32", (1,))
    return found


def nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a stored tensor of one of `ARRAY_DTYPES`."""
    return math.prod(shape) * ARRAY_DTYPES[dtype].itemsize


def tensors(scheme: str, quantized: Quantized, input_amax: float | None = None) -> dict[str, tuple[str, Array]]:
    """The tensors that store ``quantized`` under ``scheme``: suffix -> (safetensors dtype, array of stored bits).

    Parameters
    ----------
    input_amax
        Largest absolute input of the unit; only for schemes with `Scheme.needs_input_amax`.

    Raises
    ------
    NumericError
        If the scheme needs ``input_amax`` and it is missing, negative or not finite.
    """
    facts = get_scheme(scheme)
    storage = _STORAGE[facts.weight_format]
    parts: dict[str, Any] = {storage.codes[0]: quantized.codes}
    if storage.scales is not None:
        parts[storage.scales[0]] = quantized.scales
    if quantized.global_scale is not None:
        parts[_GLOBAL_SCALE] = [quantized.global_scale]
    if facts.needs_input_amax:
        parts[_INPUT_GLOBAL_SCALE] = [input_global_scale(input_amax)]
    found = {}
    for suffix, (dtype, shape) in expected(scheme, *quantized.shape).items():
        array = np.ascontiguousarray(parts[suffix], dtype=ARRAY_DTYPES[dtype])
        if array.shape != shape:
            raise ShapeError(f"{suffix} has shape {array.shape}, {scheme} stores {shape}")
        found[suffix] = (dtype, array)
    return found


def unpack(scheme: str, parts: Mapping[str, Array], shape: tuple[int, int]) -> Quantized:
    """The inverse of `tensors`: what the stored ``parts`` (suffix -> array of stored bits) of a Linear hold.

    Parameters
    ----------
    shape
        ``[rows, columns]`` of the weight. Every part must already have the dtype and shape that `expected` names.

    Raises
    ------
    ShapeError
        If a part is missing or has another shape or item size.
    """
    facts = get_scheme(scheme)
    storage = _STORAGE[facts.weight_format]
    for suffix, (dtype, part_shape) in expected(scheme, *shape).items():
        part = parts.get(suffix)
        if part is None or part.shape != part_shape or part.dtype != ARRAY_DTYPES[dtype]:
            raise ShapeError(f"{suffix} is not {dtype} {list(part_shape)}, which {scheme} stores")
    scale = parts[_GLOBAL_SCALE] if format_info(facts.weight_format).has_global_scale else None
    return Quantized(
        format=facts.weight_format,
        shape=shape,
        codes=parts[storage.codes[0]],
        scales=None if storage.scales is None else parts[storage.scales[0]],
        global_scale=None if scale is None else float(scale[0]),
    )


def as_array(data: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    """Raw bytes (uint8, one axis) of a stored tensor as the array of bits that `unpack` takes."""
    return data.view(ARRAY_DTYPES[dtype]).reshape(shape)


def input_global_scale(input_amax: float | None) -> float:
    """``float32(448 * 6 / input_amax)``, the divisor for NVFP4 activations; 1 for inputs that were always zero.

    Raises
    ------
    NumericError
        If ``input_amax`` is missing, negative or not finite.
    """
    if input_amax is None or not np.isfinite(input_amax) or input_amax < 0:
        raise NumericError(f"the largest absolute input is {input_amax}", hint="probe the model again")
    with np.errstate(divide="ignore", over="ignore"):
        scale = np.float32(448.0 * 6.0) / np.float32(input_amax)
    return float(scale) if np.isfinite(scale) else 1.0
