"""The one table from a weight format to the tensors in which compressed-tensors stores it, and the way there and back.

Rules of compressed-tensors: global scales are divisors in F32 ``[1]``; E8M0 scales are labelled U8; codes of four bits
lie two to a byte with the even column in the low half, or eight to an I32 with `weight_shape` beside them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prismaquant.errors import FormatError, ShapeError
from prismaquant.formats import format_info

if TYPE_CHECKING:
    from prismaquant.codec.quantized import Quantized
    from prismaquant.types import Array

__all__ = ["ARRAY_DTYPES", "StoredTensor", "pack", "stored", "stored_formats", "unpack"]

#: numpy dtype that holds each safetensors dtype we write, little endian. numpy has no E4M3 and no bfloat16: their bits.
ARRAY_DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("u1"),
    "F8_E4M3": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}

#: Names of dtypes in torch and ml_dtypes -> safetensors dtype.
_TAGS = {
    "uint8": "U8",
    "float8_e4m3fn": "F8_E4M3",
    "int8": "I8",
    "bfloat16": "BF16",
    "float16": "F16",
    "float32": "F32",
    "int32": "I32",
    "int64": "I64",
}


class StoredTensor(NamedTuple):
    """One tensor as a checkpoint holds it.

    Attributes
    ----------
    dtype
        The safetensors dtype: U8, F8_E4M3, I8, BF16, F16, F32, I32 or I64.
    array
        Its values; for the two dtypes that numpy lacks the bits: uint8 for F8_E4M3, uint16 for BF16
        (``array.view(ml_dtypes.bfloat16)``, ``torch.from_numpy(array).view(torch.bfloat16)``).
    """

    dtype: str
    array: Array


@dataclass(frozen=True, slots=True)
class _Layout:
    """Suffix and safetensors dtype of the codes and of the block scales."""

    codes: tuple[str, str]
    scales: tuple[str, str] | None = None


_FP8 = _Layout(("weight", "F8_E4M3"), ("weight_scale", "BF16"))
_MX = _Layout(("weight_packed", "U8"), ("weight_scale", "U8"))
_INT4 = _Layout(("weight_packed", "I32"), ("weight_scale", "BF16"))

_LAYOUTS = {
    "nvfp4": _Layout(("weight_packed", "U8"), ("weight_scale", "F8_E4M3")),
    "mxfp4": _MX,
    "mxfp6_e2m3": _MX,
    "mxfp8_e4m3": _Layout(("weight", "F8_E4M3"), ("weight_scale", "U8")),
    "fp8_e4m3_channel": _FP8,
    "fp8_e4m3_tensor": _FP8,
    "fp8_e4m3_block": _FP8,
    "int8_channel": _Layout(("weight", "I8"), ("weight_scale", "BF16")),
    **{f"int4_g{group}{zeros}": _INT4 for group in (32, 64, 128) for zeros in ("", "_asym")},
    "bf16": _Layout(("weight", "BF16")),
    "fp16": _Layout(("weight", "F16")),
}

_GLOBAL_SCALE, _SHAPE, _ZERO_POINTS = "weight_global_scale", "weight_shape", "weight_zero_point"


def stored_formats() -> tuple[str, ...]:
    """Names of the formats that compressed-tensors stores."""
    return tuple(_LAYOUTS)


def stored(format: str, rows: int, columns: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors of a weight ``[rows, columns]``: suffix -> (safetensors dtype, shape).

    Raises
    ------
    FormatError
        compressed-tensors does not store ``format``.
    """
    from prismaquant import _core

    layout = _layout(format)
    shapes = {name: shape for name, (_, shape) in _core.storage(format, rows, columns).items()}
    found: dict[str, tuple[str, tuple[int, ...]]] = {layout.codes[0]: (layout.codes[1], shapes["codes"])}
    if layout.scales is not None:
        one = format_info(format).block_rows == 0 and format_info(format).block_columns == 0
        found[layout.scales[0]] = (layout.scales[1], (1,) if one else shapes["scales"])
    if "extra" in shapes:
        found[_ZERO_POINTS] = ("I32", shapes["extra"])
    if format_info(format).has_global_scale:
        found[_GLOBAL_SCALE] = ("F32", (1,))
    if layout is _INT4:
        found[_SHAPE] = ("I64", (2,))
    return found


def pack(quantized: Quantized, what: str | None = None) -> dict[str, StoredTensor]:
    """The tensors that store ``quantized``, by suffix; ``what`` stores them in messages (default: the format)."""
    layout = _layout(quantized.format)
    rows, columns = quantized.matrix_shape
    parts: dict[str, Any] = {
        layout.codes[0]: quantized.codes,
        _ZERO_POINTS: quantized.extra,
        _GLOBAL_SCALE: [quantized.global_scale],
        _SHAPE: [rows, columns],
    }
    if layout.scales is not None:
        parts[layout.scales[0]] = quantized.scales
    found = {}
    for suffix, (dtype, shape) in stored(quantized.format, rows, columns).items():
        array = np.ascontiguousarray(parts[suffix])
        wanted = ARRAY_DTYPES[dtype]
        if suffix in (_GLOBAL_SCALE, _SHAPE):
            array = array.astype(wanted)
        elif array.dtype.itemsize == wanted.itemsize:
            array = array.view(wanted)
        if array.shape == (1, 1):
            array = array.reshape(shape)
        if array.shape != shape or array.dtype != wanted:
            name = what or quantized.format
            raise ShapeError(f"{suffix} is {array.dtype} {list(array.shape)}, {name} stores {dtype} {list(shape)}")
        found[suffix] = StoredTensor(dtype, array)
    return found


def unpack(
    tensors: Mapping[str, Any], format: str, shape: tuple[int, int] | None = None, what: str | None = None
) -> dict[str, Any]:
    """The fields of the `Quantized` that ``tensors`` hold; ``shape`` by default as they say."""
    layout = _layout(format)
    what = what or format
    if shape is None:
        shape = _shape_of(tensors, format, layout)
    arrays = {}
    wanted = stored(format, *shape)
    for suffix, (dtype, part_shape) in wanted.items():
        tag, array = _read(tensors.get(suffix), dtype)
        if array is None or tag != dtype or array.shape != part_shape:
            got = "it is missing" if array is None else f"it is {tag} {list(array.shape)}"
            raise ShapeError(f"{suffix} is not {dtype} {list(part_shape)}, which {what} stores: {got}")
        arrays[suffix] = array
    for suffix in tensors:
        if suffix.startswith("weight") and suffix not in wanted:
            raise ShapeError(f"{suffix}: {what} stores no such tensor, but {', '.join(wanted)}")
    words: dict[str, Any] = {"codes": arrays[layout.codes[0]], "scales": None, "extra": arrays.get(_ZERO_POINTS)}
    if layout.scales is not None:
        words["scales"] = arrays[layout.scales[0]]
    from prismaquant import _core

    fields: dict[str, Any] = {"format": format, "shape": shape, "global_scale": None, **words}
    for name, (dtype, part_shape) in _core.storage(format, *shape).items():
        fields[name] = words[name].view(dtype).reshape(part_shape)
    if _GLOBAL_SCALE in arrays:
        fields["global_scale"] = float(arrays[_GLOBAL_SCALE][0])
    return fields


def _layout(format: str) -> _Layout:
    if format not in _LAYOUTS:
        format_info(format)  # an unknown name is another error
        raise FormatError(f"compressed-tensors does not store {format}", hint=f"it stores {', '.join(_LAYOUTS)}")
    return _LAYOUTS[format]


def _shape_of(tensors: Mapping[str, Any], format: str, layout: _Layout) -> tuple[int, int]:
    """``[rows, columns]`` of the weight, from the shape of its codes, or as stored beside them."""
    suffix, dtype = layout.codes
    _, codes = _read(tensors.get(suffix), dtype)
    if codes is None or codes.ndim != 2:
        got = "it is missing" if codes is None else f"it has shape {list(codes.shape)}"
        raise ShapeError(f"{suffix}: expected {dtype} with 2 axes, which {format} stores: {got}")
    rows, words = codes.shape
    columns = words * 8 * ARRAY_DTYPES[dtype].itemsize // format_info(format).element_bits
    if layout is _INT4:
        _, said = _read(tensors.get(_SHAPE), "I64")
        if said is not None and said.shape == (2,):
            return int(said[0]), int(said[1])
    return rows, columns


def _read(value: Any, wanted: str) -> tuple[str, Array | None]:
    """Safetensors dtype and array of a part: a `StoredTensor`, a tensor of torch, an array of numpy or ml_dtypes."""
    if value is None:
        return "", None
    if isinstance(value, tuple):
        return value[0], value[1]
    name = str(value.dtype).removeprefix("torch.")
    tag = _TAGS.get(name, name)
    if not isinstance(value, np.ndarray):
        value = _from_torch(value, tag)
    elif (name, wanted) in (("uint8", "F8_E4M3"), ("uint16", "BF16")):
        tag = wanted  # numpy arrays of the bits
    return tag, value.view(ARRAY_DTYPES[tag]) if tag in ARRAY_DTYPES else value


def _from_torch(tensor: Any, tag: str) -> Array:
    """The same memory as an array, bits for dtypes that numpy lacks. Whoever has a tensor has loaded torch."""
    torch = sys.modules[type(tensor).__module__.partition(".")[0]]
    tensor = tensor.detach().cpu()
    bits = {"F8_E4M3": "uint8", "BF16": "int16"}.get(tag)
    array: Array = (tensor if bits is None else tensor.contiguous().view(getattr(torch, bits))).numpy()
    return array
