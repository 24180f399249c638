"""Rules about tensors: the exact set, dtypes and shapes, codes and scales that decode, and equality with the source."""

from __future__ import annotations

import filecmp
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from prismaquant.exporting.cache_scales import SUFFIXES
from prismaquant.exporting.report import Check
from prismaquant.exporting.schemes import WEIGHT_PARTS, expected, suffixes, weight_shape
from prismaquant.files import manifest
from prismaquant.formats import blocks, get_scheme, why_not
from prismaquant.model.parallel import why_not_divided

if TYPE_CHECKING:
    from prismaquant.exporting.checks.folder import Folder
    from prismaquant.exporting.checks.structure import UnitNames
    from prismaquant.files.manifest import LinearRecord, Manifest
    from prismaquant.model import Linear, Model, TensorInfo

__all__ = [
    "Bytes",
    "Parts",
    "check_bits",
    "check_codes",
    "check_copy",
    "check_fused_scales",
    "check_manifest",
    "check_other_files",
    "check_parallel",
    "check_passthrough",
    "check_same_weight",
    "check_scale",
    "check_shapes",
    "check_shared",
    "check_signal",
    "check_squared_error",
    "check_strays",
    "check_tensor_set",
    "is_quantized",
    "snr_db",
    "stored_shape",
]

#: Stored bytes, one axis; and last part of the tensor name -> the tensor and its bytes.
Bytes: TypeAlias = npt.NDArray[np.uint8]
Parts: TypeAlias = "dict[str, tuple[TensorInfo, Bytes]]"

_BIAS = "bias"
_CHUNK = 64 * 2**20

#: safetensors dtype -> unsigned type of its bits, and the first and last code of a positive finite number: the codes of
#: a sign-magnitude float grow with its value. Holds for scales, which must be such numbers.
#: U8 is E8M0, whose codes are exponents, the last one NaN.
_POSITIVE = {
    "U8": ("u1", 0, 0xFE),
    "F8_E4M3": ("u1", 1, 0x7E),
    "BF16": ("<u2", 1, 0x7F7F),
    "F16": ("<u2", 1, 0x7BFF),
    "F32": ("<u4", 1, 0x7F7FFFFF),
}

#: Below this an error is no rounding error: the worst block of the coarsest format, 5 beside 6 in E2M1, has 14 dB.
_LEAST_SNR_DB = 6.0


def check_tensor_set(name: str, scheme: str, tensors: Mapping[str, TensorInfo]) -> Iterator[Check]:
    """The Linear ``name`` has the tensors of its scheme and no other (a bias aside, which is passed through)."""
    wanted = set(suffixes(scheme))
    for suffix in sorted(wanted - tensors.keys()):
        yield Check("tensor-set", f"{name}.{suffix}", f"is missing, {scheme} needs it")
    for suffix in sorted(tensors.keys() - wanted - {_BIAS}):
        yield Check("tensor-set", f"{name}.{suffix}", f"is no tensor of {scheme}")


def stored_shape(scheme: str, tensors: Mapping[str, TensorInfo]) -> tuple[int, int] | None:
    """``[rows, columns]`` of the weight whose codes are among ``tensors``; ``None`` if they are not a matrix."""
    shape = tensors[suffixes(scheme)[0]].shape
    return weight_shape(scheme, shape) if len(shape) == 2 else None


def check_shapes(
    name: str, scheme: str, shape: tuple[int, int] | None, tensors: Mapping[str, TensorInfo]
) -> Iterator[Check]:
    """The tensors have the dtypes and shapes that ``scheme`` stores for a weight of ``shape`` ``[rows, columns]``."""
    if shape is None:
        yield Check("tensor-shape", name, "its codes are not a matrix")
        return
    if reason := why_not(get_scheme(scheme), *shape):
        yield Check("tensor-shape", name, f"cannot be {scheme}: {reason}")
    for suffix, (dtype, wanted) in expected(scheme, *shape).items():
        found = tensors[suffix]
        if found.dtype != dtype:
            yield Check("tensor-dtype", found.name, f"is {found.dtype}, {scheme} stores {dtype}")
        if found.shape != wanted:
            text = f"is {list(found.shape)}, {scheme} stores {list(wanted)} for {list(shape)}"
            yield Check("tensor-shape", found.name, text)


def check_parallel(
    name: str, scheme: str, shape: tuple[int, int] | None, devices: int, kv_heads: int
) -> Iterator[Check]:
    """The weight can be divided among ``devices`` without cutting a block."""
    if shape is not None and devices > 1:
        sizes = blocks(get_scheme(scheme))
        if reason := why_not_divided(name, shape, devices, blocks=sizes, kv_heads=kv_heads):
            yield Check("tensor-parallel", name, f"{scheme}: {reason}")


def check_bits(parts: Parts) -> Iterator[Check]:
    """FP8 codes are no NaN; scales are positive and finite."""
    for suffix, (tensor, data) in parts.items():
        if suffix == "weight" and tensor.dtype == "F8_E4M3":
            yield from check_codes(tensor, data)
        elif suffix.endswith("_scale"):
            yield from check_scale(tensor, data)


def check_codes(tensor: TensorInfo, data: Bytes) -> Iterator[Check]:
    """None of the E4M3 codes is a NaN."""
    if count := int(np.count_nonzero((data & 0x7F) == 0x7F)):
        yield Check("fp8-nan", tensor.name, f"has {count} NaN codes (0x7f or 0xff)")


def check_scale(tensor: TensorInfo, data: Bytes) -> Iterator[Check]:
    """All scales are positive and finite."""
    kind, first, last = _POSITIVE[tensor.dtype]
    bits = data.view(kind)
    if count := int(np.count_nonzero((bits < first) | (bits > last))):
        rule = "global-scale" if tensor.name.endswith("global_scale") else "scale"
        yield Check(rule, tensor.name, f"has {count} of {bits.size} values that are not positive and finite")


def check_shared(unit: UnitNames, siblings: Mapping[str, Parts]) -> Iterator[Check]:
    """Siblings have the same global scales to the last bit: an engine keeps one for all of them."""
    for suffix in WEIGHT_PARTS:
        if suffix.endswith("global_scale"):
            found = {name: parts[suffix][1].tobytes() for name, parts in siblings.items() if suffix in parts}
            if len(set(found.values())) > 1:
                values = ", ".join(
                    f"{name.rpartition('.')[2]} {np.frombuffer(data, '<f4')[0]!s}" for name, data in found.items()
                )
                yield Check("shared-scale", f"{unit.name}.{suffix}", f"differs between siblings: {values}")


def check_fused_scales(unit: UnitNames, siblings: Mapping[str, Parts]) -> Iterator[Check]:
    """Siblings of static FP8 have the same scales; vLLM rounds those with another one once more, to the largest."""
    for suffix in ("weight_scale", "input_scale"):
        found = {parts[suffix][1].tobytes() for parts in siblings.values() if "input_scale" in parts}
        if len(found) > 1 and "experts" not in unit.name:
            text = "differs between siblings: vLLM takes the largest, and rounds the weights of the others again"
            yield Check("shared-scale", f"{unit.name}.{suffix}", text, is_warning=True)


def check_copy(tensor: TensorInfo, data: Bytes, source: Model) -> Iterator[Check]:
    """The tensor has the bytes that it has in the source."""
    if not _same_bytes(data, source.read_bytes(tensor.name)):
        yield Check("passthrough", tensor.name, "has other bytes than in the source")


def check_same_weight(tensor: TensorInfo, data: Bytes, source: Model, original: Linear) -> Iterator[Check]:
    """The weight has the bytes that it has in the source, where it may be a part of a larger tensor."""
    if not _same_bytes(data, source.read_stored(original)):
        yield Check("passthrough", tensor.name, "has other bytes than in the source")


def check_signal(name: str, snr_db: float) -> Iterator[Check]:
    """The decoded weight looks like the source's."""
    if not snr_db >= _LEAST_SNR_DB:
        text = f"decodes to something else than the source: {snr_db:.1f} dB, at least {_LEAST_SNR_DB:g} expected"
        yield Check("signal-to-noise", name, text)


def check_squared_error(name: str, squared_error: float, record: LinearRecord | None) -> Iterator[Check]:
    """The bytes in the folder have exactly the error of those that were priced and written."""
    if record is not None and squared_error != record.squared_error:
        text = f"squared error {squared_error!r}, the manifest has {record.squared_error!r}"
        yield Check("squared-error", name, f"{text}: these are not the bytes that were written")


def check_strays(folder: Folder, linears: Iterable[str]) -> Iterator[Check]:
    """Outside the units nothing is stored in quantized form."""
    names = set(linears)
    for module, parts in folder.parts.items():
        if module not in names:
            for tensor in filter(is_quantized, parts.values()):
                yield Check("unquantized", tensor.name, "is quantized, but no part of a unit")


def is_quantized(tensor: TensorInfo) -> bool:
    """Whether it is a part of a weight in another form than the plain one."""
    suffix = tensor.name.rpartition(".")[2]
    return suffix in WEIGHT_PARTS and (suffix != "weight" or tensor.dtype in ("F8_E4M3", "U8", "I8"))


def check_passthrough(folder: Folder, source: Model, linears: Iterable[str]) -> Iterator[Check]:
    """All other tensors of the source are there, byte for byte, and nothing else is."""
    for name in source.passthrough:
        wanted, found = source.tensors[name], folder.tensors.get(name)
        if found is None:
            yield Check("passthrough", name, "is missing, the source has it")
        elif (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
            is_, was = f"{found.dtype} {list(found.shape)}", f"{wanted.dtype} {list(wanted.shape)}"
            yield Check("passthrough", name, f"is {is_}, in the source {was}")
        else:
            yield from check_copy(found, folder.read(found), source)
    names, known = set(linears), set(source.passthrough)
    for name in sorted(folder.tensors.keys() - known):
        module, _, suffix = name.rpartition(".")
        if folder.has_cache_scheme and suffix in SUFFIXES:
            continue
        if module not in names or suffix == _BIAS:
            yield Check("extra-tensor", name, "is neither in the source nor part of a Linear")


def _same_bytes(left: Bytes, right: Bytes) -> bool:
    """Whether two arrays of bytes are equal, a piece at a time."""
    return left.size == right.size and all(
        np.array_equal(left[begin : begin + _CHUNK], right[begin : begin + _CHUNK])
        for begin in range(0, left.size, _CHUNK)
    )


def check_other_files(folder: Folder, source: Model) -> Iterator[Check]:
    """Tokenizer, templates and every other file are those of the source, byte for byte."""
    for original in source.other_files():
        relative = original.relative_to(source.path)
        copied = folder.path / relative
        if not copied.is_file():
            yield Check("other-files", str(relative), "is missing, the source has it")
        elif not filecmp.cmp(copied, original, shallow=False):
            yield Check("other-files", str(relative), "differs from the source's")


def check_manifest(
    folder: Folder, written: Manifest, schemes: Mapping[str, str | None], source: Model | None
) -> Iterator[Check]:
    """The manifest speaks of this folder: the schemes of the configuration, the bytes of the tensors, the source."""

    def wrong(where: str, text: str) -> Check:
        return Check("manifest", f"{manifest.FILE}: {where}", text)

    planned = {linear: unit.scheme for unit in written.plan.units for linear in unit.linears}
    records = {record.name: record for record in written.linears}
    for name in sorted(planned.keys() | records.keys() | schemes.keys()):
        record = records.get(name)
        said = (planned.get(name), record.scheme if record else None)
        read = schemes.get(name)
        if name not in schemes:
            yield wrong(name, "is no Linear of the model")
        elif said != (read, read) and read is not None:
            yield wrong(name, f"is {said[0]} in the plan and {said[1]} in the records, {read} by the configuration")
        elif record is not None:
            size = sum(part.nbytes for suffix, part in folder.parts.get(name, {}).items() if suffix != _BIAS)
            if size != record.bytes:
                yield wrong(name, f"has {record.bytes} bytes, its tensors have {size}")
    for kept in written.kept:
        if kept.name not in folder.tensors:
            yield wrong(kept.name, f"is missing, and was copied from the source ({kept.reason})")
    if written.tensor_bytes != folder.nbytes:
        yield wrong("tensor_bytes", f"is {written.tensor_bytes}, the tensors have {folder.nbytes} bytes")
    if source is not None and written.plan.model != source.fingerprint:
        yield wrong("plan.model", "is the fingerprint of another model than the source")
    if source is not None and written.parameters != source.parameters:
        yield wrong("parameters", f"is {written.parameters}, the source has {source.parameters}")


def snr_db(signal: float, squared_error: float) -> float:
    """``10 log10(signal / squared_error)``, infinite for no error."""
    if squared_error == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / squared_error) if signal > 0 else -math.inf
