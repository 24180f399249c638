"""From a scheme to its form on disk: compressed-tensors arguments, and tensors by name, dtype and shape.

A new scheme is one entry of `_ARGUMENTS` (what the engine is told); how its weight format is stored says the table of
`prismaquant.codec.storage`. Beside the weight, in F32 ``[1]``: ``input_global_scale`` of NVFP4, a divisor (``448 * 6 /
max |x|``, or what the probe chose), and ``input_scale`` of static FP8, a multiplier (``max |x| / 448``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from prismaquant.codec import Quantized
from prismaquant.codec.storage import ARRAY_DTYPES, pack, stored
from prismaquant.codec.storage import unpack as unpack_weight
from prismaquant.errors import NumericError
from prismaquant.formats import BF16, get_scheme, list_schemes

if TYPE_CHECKING:
    from prismaquant.types import Array

__all__ = [
    "ANY_SIZE",
    "ARRAY_DTYPES",
    "WEIGHT_PARTS",
    "GroupArguments",
    "as_array",
    "expected",
    "group_arguments",
    "nbytes",
    "quantized_schemes",
    "suffixes",
    "tensors",
    "unpack",
    "weight_shape",
]

#: Every suffix under which a part of a Linear's weight can be stored (its bias is not one of them).
WEIGHT_PARTS = (
    "weight",
    "weight_packed",
    "weight_scale",
    "weight_global_scale",
    "weight_shape",
    "weight_zero_point",
    "input_global_scale",
    "input_scale",
)

#: Rows and columns that every scheme can store.
ANY_SIZE = 128


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
_E8M0_SCALES = {"scale_dtype": "torch.uint8"}
_MX_BLOCKS = {"type": "float", "strategy": "group", "group_size": 32, "symmetric": True}
_MXFP4 = GroupArguments(
    "mxfp4-pack-quantized",
    {"num_bits": 4, **_MX_BLOCKS, "dynamic": False, **_E8M0_SCALES},
    {"num_bits": 4, **_MX_BLOCKS, "dynamic": True, **_E8M0_SCALES},
)
_MXFP8 = GroupArguments(
    "mxfp8-quantized",
    {"num_bits": 8, **_MX_BLOCKS, "dynamic": False, **_E8M0_SCALES},
    {"num_bits": 8, **_MX_BLOCKS, "dynamic": True, **_E8M0_SCALES},
)
_FP8_CHANNELS = {**_FP8, "strategy": "channel", "symmetric": True, "dynamic": False}
_INT8 = {"num_bits": 8, "type": "int", "symmetric": True}

_ARGUMENTS = {
    "NVFP4A16": GroupArguments("nvfp4-pack-quantized", _NVFP4_WEIGHTS, None),
    "NVFP4": GroupArguments(
        "nvfp4-pack-quantized",
        _NVFP4_WEIGHTS,
        {**_FP4_BLOCKS, "dynamic": "local", **_E4M3_SCALES, "observer": "static_minmax"},
    ),
    "MXFP4A16": replace(_MXFP4, input_activations=None),
    "MXFP4": _MXFP4,
    "W4A16": GroupArguments(
        "pack-quantized",
        {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True, "dynamic": False},
        None,
    ),
    "MXFP8A16": replace(_MXFP8, input_activations=None),
    "MXFP8": _MXFP8,
    "FP8A16": GroupArguments("naive-quantized", _FP8_CHANNELS, None),
    "FP8_DYNAMIC": GroupArguments(
        "float-quantized", _FP8_CHANNELS, {**_FP8, "strategy": "token", "symmetric": True, "dynamic": True}
    ),
    "FP8_STATIC": GroupArguments(
        "float-quantized",
        {**_FP8, "strategy": "tensor", "symmetric": True, "dynamic": False},
        {**_FP8, "strategy": "tensor", "symmetric": True, "dynamic": False, "observer": "static_minmax"},
    ),
    "FP8_BLOCK": GroupArguments(
        "float-quantized",
        {**_FP8, "strategy": "block", "block_structure": [128, 128], "symmetric": True, "dynamic": False},
        {**_FP8, "strategy": "group", "group_size": 128, "symmetric": True, "dynamic": True},
    ),
    "W8A8": GroupArguments(
        "int-quantized",
        {**_INT8, "strategy": "channel", "dynamic": False},
        {**_INT8, "strategy": "token", "dynamic": True},
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
    found = stored(facts.weight_format, rows, columns)
    if facts.input_scale:
        found[facts.input_scale] = ("F32", (1,))
    return found


def suffixes(scheme: str) -> tuple[str, ...]:
    """Names of the tensors of a Linear under ``scheme``, the codes first."""
    return tuple(expected(scheme, ANY_SIZE, ANY_SIZE))


def weight_shape(scheme: str, codes: tuple[int, ...]) -> tuple[int, int]:
    """``[rows, columns]`` of the weight whose stored codes have the shape ``codes``, of two axes."""
    _, (_, width) = expected(scheme, ANY_SIZE, ANY_SIZE)[suffixes(scheme)[0]]
    rows, stored_width = codes
    return rows, stored_width * ANY_SIZE // width


def nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a stored tensor of one of `ARRAY_DTYPES`."""
    return math.prod(shape) * ARRAY_DTYPES[dtype].itemsize


def tensors(scheme: str, quantized: Quantized, input_scale: float | None = None) -> dict[str, tuple[str, Array]]:
    """The tensors that store ``quantized`` under ``scheme``: suffix -> (safetensors dtype, array of stored bits).

    Parameters
    ----------
    input_scale
        Of the unit's inputs; only for schemes with a `Scheme.input_scale`.

    Raises
    ------
    NumericError
        If the scheme needs ``input_scale`` and it is missing, not positive or not finite.
    """
    found: dict[str, tuple[str, Array]] = {**pack(quantized, scheme)}
    suffix = get_scheme(scheme).input_scale
    if suffix:
        if input_scale is None or not (math.isfinite(input_scale) and input_scale > 0):
            raise NumericError(f"{suffix} is {input_scale}", hint="probe the model again")
        found[suffix] = ("F32", np.array([input_scale], ARRAY_DTYPES["F32"]))
    return found


def unpack(scheme: str, parts: Mapping[str, Array], shape: tuple[int, int]) -> Quantized:
    """The inverse of `tensors`: the weight that the stored ``parts`` (suffix -> array of stored bits) of a Linear hold.

    Parameters
    ----------
    shape
        ``[rows, columns]`` of the weight. Its parts must already have the dtype and shape that `expected` names.

    Raises
    ------
    ShapeError
        If a part is missing, or has another shape or dtype.
    """
    return Quantized(**unpack_weight(parts, get_scheme(scheme).weight_format, shape, scheme))


def as_array(data: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    """Raw bytes (uint8, one axis) of a stored tensor as the array of bits that `unpack` takes."""
    return data.view(ARRAY_DTYPES[dtype]).reshape(shape)
