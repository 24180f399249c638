"""Headers of safetensors files: `read_shard` checks one file to the last byte of its header and reads no weights.

The rules are those of the safetensors specification (https://github.com/huggingface/safetensors#format), kept more
strictly than by the safetensors library, which lets duplicate names and unknown fields pass.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prismaquant.errors import ModelError
from prismaquant.model.document import MAX_BYTES, parse_object

__all__ = ["Shard", "TensorInfo", "read_shard"]

#: Bits per element of every dtype that safetensors 0.8 knows.
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("C64", "F64", "I64", "U64"), 64),
}
_LIMIT = 2**63 - 1  # sizes and offsets are 64-bit integers for every reader
_FIELDS = {"dtype", "shape", "data_offsets"}
_DAMAGED = "the file is damaged or incomplete, download it again"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies.

    Attributes
    ----------
    name, dtype, shape
        As in the header; the dtype is a safetensors name (``"BF16"``).
    file
        Name of the shard inside the model folder.
    begin, end
        Byte offsets from the start of that file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Stored bytes."""
        return self.end - self.begin

    @property
    def parameters(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Shard:
    """One safetensors file: its name, the JSON bytes of its header, its size in bytes, its tensors by offset."""

    name: str
    header: bytes
    size: int
    tensors: tuple[TensorInfo, ...]

    def __repr__(self) -> str:
        return f"Shard({self.name}, {len(self.tensors)} tensors, {self.size} bytes)"


def read_shard(path: Path) -> Shard:
    """Header of the safetensors file ``path``.

    Raises
    ------
    ModelError
        If the file is missing or breaks a rule of the format: header length, UTF-8, JSON, duplicate names, dtypes,
        shapes, and offsets, which must cover the rest of the file without a hole, an overlap or a byte left over.
    """
    where = str(path)
    try:
        if not path.is_file():
            raise ModelError("is missing, or is no file", where=where, hint="download the model again")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = _header_length(file.read(8), size, where)
            header = file.read(length)
    except OSError as cause:
        raise ModelError(f"cannot be read ({cause.strerror})", where=where) from cause
    if not header.startswith(b"{"):
        raise ModelError("its header does not begin with '{'", where=where, hint=_DAMAGED)
    entries = parse_object(header, where, what="header")
    _check_metadata(entries.pop("__metadata__", {}), where)
    tensors = [_tensor(name, entry, path, 8 + length) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    _check_coverage(tensors, 8 + length, size, where)
    return Shard(path.name, header, size, tuple(tensors))


def _header_length(start: bytes, size: int, where: str) -> int:
    if start == b"version ":
        raise ModelError(
            "is a Git LFS pointer, not the weights", where=where, hint="fetch the weights with 'git lfs pull'"
        )
    if len(start) < 8:
        raise ModelError(f"is not a safetensors file: {size} bytes, at least 8 needed", where=where, hint=_DAMAGED)
    length = int.from_bytes(start, "little")
    if length > MAX_BYTES:
        raise ModelError(
            f"is not a safetensors file: header of {length} bytes, {MAX_BYTES} allowed", where=where, hint=_DAMAGED
        )
    if 8 + length > size:
        raise ModelError(
            f"is truncated: its header ends at byte {8 + length}, the file at byte {size}", where=where, hint=_DAMAGED
        )
    return length


def _check_metadata(metadata: Any, where: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelError("its __metadata__ is not an object of strings", where=where, hint=_DAMAGED)


def _tensor(name: str, entry: Any, path: Path, data: int) -> TensorInfo:
    def refuse(message: str, hint: str = _DAMAGED) -> ModelError:
        return ModelError(message, where=f"{path}: tensor {name!r}", hint=hint)

    if not name.isprintable():
        raise refuse("its name has unprintable characters")
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        raise refuse("its header entry must have exactly the fields dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise refuse(f"dtype {dtype!r} is unknown to safetensors", f"known: {', '.join(_BITS)}; write the file again")
    if not _is_sizes(shape):
        raise refuse(f"shape {shape!r} is not a list of sizes")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise refuse(f"data_offsets {offsets!r} are not [begin, end]")
    elements = 1
    for axis in shape:
        elements *= axis
        if elements > _LIMIT:
            raise refuse(f"shape {shape} has more elements than 64 bits can count")
    size, left = divmod(elements * _BITS[dtype], 8)
    if left:
        raise refuse(f"{dtype} {shape} takes no whole number of bytes")
    begin, end = offsets
    if size != end - begin:
        raise refuse(f"{dtype} {shape} takes {size} bytes, but data_offsets [{begin}, {end}] hold {end - begin}")
    return TensorInfo(name, dtype, tuple(shape), path.name, data + begin, data + end)


def _is_sizes(value: Any) -> bool:
    # type() and not isinstance(): JSON's true is an int in Python
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= _LIMIT for item in value)


def _check_coverage(tensors: list[TensorInfo], data: int, size: int, where: str) -> None:
    end, before = data, "the header"
    for tensor in tensors:
        here = f"{where}: tensor {tensor.name!r}"
        if tensor.begin > end:
            raise ModelError(f"bytes {end} to {tensor.begin} before it belong to no tensor", where=here, hint=_DAMAGED)
        if tensor.begin < end:
            raise ModelError(
                f"it begins at byte {tensor.begin}, but {before} ends at byte {end}: they overlap",
                where=here,
                hint=_DAMAGED,
            )
        if tensor.end > size:
            raise ModelError(
                f"the file is truncated: it ends at byte {size}, the tensor at byte {tensor.end}",
                where=here,
                hint="download the file again",
            )
        end, before = tensor.end, repr(tensor.name)
    if end < size:
        raise ModelError(
            f"has {size - end} bytes after its last tensor, from byte {end} on", where=where, hint=_DAMAGED
        )
