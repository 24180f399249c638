"""`densify`: a quantized folder as a plain one, for engines without the kernels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from prismaquant.codec import get_codec
from prismaquant.errors import ArgumentError, ModelError
from prismaquant.exporting import config, copy, shards
from prismaquant.exporting.checks.folder import Folder, read_folder
from prismaquant.exporting.checks.resolution import read_resolution
from prismaquant.exporting.checks.structure import read_layout, resolve_linear, with_stored_units
from prismaquant.exporting.checksums import write_checksums
from prismaquant.exporting.publish import publishing
from prismaquant.exporting.schemes import as_array, suffixes, unpack, weight_shape
from prismaquant.formats import BF16
from prismaquant.progress import Event, Progress, silent

if TYPE_CHECKING:
    from prismaquant.types import Array

__all__ = ["DTYPES", "densify"]

#: Name of the dtype -> its safetensors name, and the format that rounds to it.
DTYPES = {"bfloat16": ("BF16", "bf16"), "float16": ("F16", "fp16")}


def densify(
    checkpoint: Path,
    out: Path,
    *,
    dtype: str = "bfloat16",
    force: bool = False,
    shard_size: int = 5 * 10**9,
    threads: int | None = None,
    progress: Progress = silent,
) -> Path:
    """Write ``checkpoint`` to the folder ``out`` with every Linear decoded; all other tensors stay as they are.

    Raises
    ------
    ArgumentError
        ``dtype`` is none of `DTYPES`.
    ModelError
        The folder cannot be read, is not quantized, or has a Linear of no known scheme.
    RefusedError
        ``out`` exists, is locked or does not fit on the disk.
    """
    if dtype not in DTYPES:
        raise ArgumentError(f"dtype is {dtype!r}", hint=f"accepted: {', '.join(DTYPES)}")
    folder, failures = read_folder(checkpoint)
    if folder is None:
        raise ModelError(failures[0].text, where=f"{checkpoint}: {failures[0].where}", hint="verify the folder")
    schemes = _schemes(folder)
    layout = shards.lay_out(_entries(folder, schemes, DTYPES[dtype][0]), shard_size)
    plain = {key: value for key, value in folder.config.items() if key != config.KEY}
    document = config.with_dtype(plain, dtype)
    documents = {
        config.FILE: (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode(),
        shards.INDEX: shards.index(layout),
    }
    nbytes = sum(shard.nbytes for shard in layout) + sum(map(len, documents.values())) + copy.nbytes(checkpoint)
    with publishing(out, source=checkpoint, nbytes=nbytes, force=force) as target:
        with shards.ShardWriter(target, layout) as writer:
            for name, tensor in folder.tensors.items():
                if _is_kept(name, schemes):
                    writer.write(name, folder.read(tensor))
            for done, (name, scheme) in enumerate(schemes.items()):
                progress(Event("convert", done, len(schemes), name))
                writer.write(f"{name}.weight", _decode(folder, name, scheme, dtype, threads))
        for file, data in documents.items():
            (target / file).write_bytes(data)
        copy.copy_other_files(checkpoint, target)
        write_checksums(target, writer.sums)
    progress(Event("convert", len(schemes), len(schemes)))
    return out


def _schemes(folder: Folder) -> dict[str, str]:
    """Name of each Linear that is stored in another form than a plain weight -> its scheme."""
    where = str(folder.path)
    if folder.is_plain:
        raise ModelError("is not quantized", where=where, hint="there is nothing to convert")
    layout, failures = read_layout(folder.config, folder.tensors)
    if layout is None:
        raise ModelError(failures[0].text, where=f"{where}: {failures[0].where}", hint="verify the folder")
    resolution, _ = read_resolution(folder.config[config.KEY])
    layout = with_stored_units(layout, folder, resolution)
    found = {}
    for name in layout.linears:
        scheme, broken = resolve_linear(resolution, name)
        missing = [] if scheme is None else [x for x in suffixes(scheme) if x not in folder.parts.get(name, {})]
        if scheme is None or missing:
            problem = broken[0].text if broken else f"lacks {', '.join(missing)}" if missing else "has no known scheme"
            raise ModelError(problem, where=f"{where}: {name}", hint="verify the folder")
        if scheme != BF16:
            found[name] = scheme
    return found


def _is_kept(name: str, schemes: dict[str, str]) -> bool:
    """Whether the tensor is no part of a quantized weight."""
    module, _, suffix = name.rpartition(".")
    return module not in schemes or suffix == "bias"


def _entries(folder: Folder, schemes: dict[str, str], dtype: str) -> Iterator[shards.Entry]:
    for name, tensor in folder.tensors.items():
        if _is_kept(name, schemes):
            yield shards.Entry(name, tensor.dtype, tensor.shape, tensor.nbytes)
    for name, scheme in schemes.items():
        rows, columns = weight_shape(scheme, folder.parts[name][suffixes(scheme)[0]].shape)
        yield shards.Entry(f"{name}.weight", dtype, (rows, columns), 2 * rows * columns)


def _decode(folder: Folder, name: str, scheme: str, dtype: str, threads: int | None) -> Array:
    """The weight of the Linear as bits of ``dtype``."""
    tensors = {suffix: folder.parts[name][suffix] for suffix in suffixes(scheme)}
    shape = weight_shape(scheme, tensors[suffixes(scheme)[0]].shape)
    parts = {suffix: as_array(folder.read(tensor), tensor.dtype, tensor.shape) for suffix, tensor in tensors.items()}
    quantized = unpack(scheme, parts, shape)
    weight = get_codec(quantized.format).decode(quantized, threads=threads)
    codes: Array = get_codec(DTYPES[dtype][1]).encode(weight).codes
    return codes
