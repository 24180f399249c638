"""`Model`: an opened model folder. Until a tensor is asked for, only ``config.json`` and headers are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from prismaquant.errors import ModelError, NumericError
from prismaquant.files.fingerprint import fingerprint
from prismaquant.model import folder as folders
from prismaquant.model.architectures import Architecture, find_architecture
from prismaquant.model.headers import TensorInfo
from prismaquant.model.kept import NO_LAYER, find_kept_units
from prismaquant.model.reasons import HEAD, UNKNOWN, outside_of, reason_of
from prismaquant.model.shards import collect_tensors, read_shards
from prismaquant.model.units import Linear, Unit, find_units, is_matrix
from prismaquant.quantity import format_bytes
from prismaquant.types import PathLike

__all__ = ["Model", "open_model"]

_SAMPLE = 4096  # bytes of each tensor that the fingerprint sees
_PART = 64 * 2**20
_OPEN = 128  # shards that are open at the same time


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A model folder whose every tensor has a role: the weight of a Linear of exactly one unit, or passed through.

    Attributes
    ----------
    path
        The folder, absolute.
    config
        Content of ``config.json``.
    text_config
        What it says of the language model: itself, or a part of it in models that also see or hear.
    architecture
        The data entry that named the units.
    tensors
        Tensor name -> dtype, shape and place, sorted by name.
    units
        In the order of the layers, then of the architecture entry; then those of `with_units`.
    passthrough
        Names of all other tensors, sorted: embeddings, head, norms, biases, and what the entry does not know.
    num_layers
        Number of decoder layers.
    """

    path: Path
    config: dict[str, Any]
    text_config: dict[str, Any]
    architecture: Architecture
    tensors: dict[str, TensorInfo]
    units: tuple[Unit, ...]
    passthrough: tuple[str, ...]
    num_layers: int
    _headers: str = field(default="")  # fingerprint of config.json and the headers, as they were when opened

    def __repr__(self) -> str:
        return (
            f"Model({self.architecture.model_type}, {self.num_layers} layers, {len(self.units)} units, "
            f"{_count(self.parameters)} parameters, {format_bytes(self.nbytes)})"
        )

    @property
    def parameters(self) -> int:
        """Elements of all tensors."""
        return sum(tensor.parameters for tensor in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """Stored bytes of all tensors, headers not counted."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def unlisted(self) -> tuple[str, ...]:
        """Names of the passed-through matrices inside decoder layers.

        They are Linears that stay as they are, which the user and the engines (as ignored layers) have to be told.
        """
        prefix = f"{self.architecture.layers}."
        return tuple(name for name in self.passthrough if name.startswith(prefix) and is_matrix(self.tensors[name]))

    @cached_property
    def reasons(self) -> dict[str, str]:
        """Name of each passed-through tensor -> why it stays as it is; see `prismaquant.model.reasons`."""
        return {name: reason_of(self.tensors[name], self.architecture, self.num_layers) for name in self.passthrough}

    @property
    def unknown(self) -> tuple[str, ...]:
        """Those of `unlisted` that are parts of a layer that the architecture entry does not know."""
        return tuple(name for name in self.unlisted if self.reasons[name] == UNKNOWN)

    @property
    def outside(self) -> tuple[str, ...]:
        """Modules with matrices that are outside of the language model: towers, projectors, MTP layers; sorted.

        Of one that has a unit, the parts without any.
        """
        linears = [linear.name for unit in self.units if unit.layer == NO_LAYER for linear in unit.linears]
        return outside_of((self.tensors[name] for name in self.passthrough), linears)

    @property
    def is_tied(self) -> bool:
        """Whether the output head is the embedding."""
        said = self.text_config.get("tie_word_embeddings", self.config.get("tie_word_embeddings"))
        return said is True or not any(name.endswith("lm_head.weight") for name in self.tensors)

    @cached_property
    def kept_units(self) -> tuple[Unit, ...]:
        """What could be units among the passed-through tensors: head, MTP layers, towers; a tied head is none."""
        reasons = {name: reason for name, reason in self.reasons.items() if not (self.is_tied and reason == HEAD)}
        return find_kept_units(self.tensors, reasons, self.architecture, self.text_config, self.path)

    def with_units(self, units: Iterable[Unit]) -> Model:
        """The same model in which ``units``, some of `kept_units`, are units, behind all others."""
        added = tuple(units)
        if not added:
            return self
        weights = {linear.weight.name for unit in added for linear in unit.linears}
        passthrough = tuple(name for name in self.passthrough if name not in weights)
        return replace(self, units=(*self.units, *added), passthrough=passthrough)

    @cached_property
    def fingerprint(self) -> str:
        """``"sha256:..."`` of ``config.json``, every shard's header and size, and 4 KiB from the middle of each tensor.

        The samples tell fine-tunes of one model apart, whose headers are equal. Reads the folder on first use.
        """
        with ExitStack() as stack:
            return fingerprint(chain([self._headers.encode()], self._samples(stack)))

    def _samples(self, stack: ExitStack) -> Iterator[bytes]:
        """A part from the middle of each tensor. Shards stay open, until more of them might be refused."""
        shards: dict[str, BinaryIO] = {}
        for tensor in self.tensors.values():
            size = min(tensor.nbytes, _SAMPLE)
            begin = (tensor.nbytes - size) // 2
            try:
                if tensor.file not in shards:
                    if len(shards) == _OPEN:
                        stack.close()
                        shards.clear()
                    shards[tensor.file] = stack.enter_context((self.path / tensor.file).open("rb", _SAMPLE))
                shards[tensor.file].seek(tensor.begin + begin)
                data = shards[tensor.file].read(size)
            except OSError:
                data = b""
            yield data if len(data) == size else self._read(tensor, begin, size).tobytes()  # which says what is wrong

    def linears(self) -> Iterator[Linear]:
        """All Linears, in the order of the units."""
        for unit in self.units:
            yield from unit.linears

    def read_bytes(self, name: str) -> npt.NDArray[np.uint8]:
        """The stored bytes of tensor ``name``, uint8 ``[nbytes]``; reads no other part of its shard.

        Raises
        ------
        ModelError
            If there is no such tensor, or the shard is no longer what it was when the folder was opened.
        """
        tensor = self.tensors.get(name)
        if tensor is None:
            raise ModelError(f"has no tensor {name!r}", where=str(self.path))
        return self._read(tensor, 0, tensor.nbytes)

    def read_parts(self, tensor: TensorInfo) -> Iterator[npt.NDArray[np.uint8]]:
        """The stored bytes of ``tensor``, at most 64 MiB at a time; errors as `read_bytes`."""
        for begin in range(0, tensor.nbytes, _PART):
            yield self._read(tensor, begin, min(_PART, tensor.nbytes - begin))

    def read_stored(self, linear: Linear) -> npt.NDArray[np.uint8]:
        """The stored bytes of the weight of ``linear``, uint8 ``[nbytes]``.

        Raises
        ------
        ModelError
            As `read_bytes`.
        """
        return self._read(linear.weight, 0, linear.weight.nbytes)

    def read_weight(self, linear: Linear) -> npt.NDArray[np.float32]:
        """The weight of ``linear`` as float32 ``[rows, columns]``, exact.

        Raises
        ------
        ModelError
            As `read_bytes`.
        NumericError
            If the weight has NaN or infinite values; says how many of each.
        """
        tensor = linear.weight
        weight = _to_float32(self.read_stored(linear), tensor.dtype).reshape(tensor.shape)
        if not np.isfinite(weight).all():
            nans, infinities = int(np.isnan(weight).sum()), int(np.isinf(weight).sum())
            raise NumericError(
                f"{nans} NaN and {infinities} infinite values of {tensor.parameters}, and no format can keep them",
                where=f"{self.path / tensor.file}: tensor {tensor.name!r}",
                hint="the model is damaged: repair it, or download it again",
            )
        return weight

    def other_files(self) -> tuple[Path, ...]:
        """The files that a quantized copy takes over byte for byte; see `prismaquant.model.folder.other_files`."""
        return folders.other_files(self.path)

    def _read(self, tensor: TensorInfo, offset: int, size: int) -> npt.NDArray[np.uint8]:
        path = self.path / tensor.file
        where = f"{path}: tensor {tensor.name!r}"
        try:
            data = np.fromfile(path, np.uint8, size, offset=tensor.begin + offset)
        except OSError as cause:
            raise ModelError(f"cannot be read ({cause.strerror})", where=where) from cause
        if data.size != size:
            raise ModelError(
                f"{size - data.size} of {size} bytes are gone: the file was changed after it was opened",
                where=where,
                hint="open the model again, and leave its files alone during a run",
            )
        return data


def open_model(path: PathLike) -> Model:
    """Open a Hugging Face model folder: reads ``config.json`` and the safetensors headers, nothing else.

    Parameters
    ----------
    path
        The folder, with ``config.json`` and ``model.safetensors`` or shards and their index.

    Raises
    ------
    ModelError
        If the folder is missing, incomplete, damaged, quantized already, or of an unknown architecture. The message
        names the file (and the tensor) and says what to do.
    """
    try:
        return _open(folders.find_folder(Path(path)))
    except OSError as cause:
        raise ModelError(f"cannot be read ({cause.strerror})", where=str(cause.filename or path)) from cause


def _open(folder: Path) -> Model:
    data, config = folders.read_config(folder)
    where = str(folder / folders.CONFIG)
    architecture = find_architecture(config, where)
    text_config = architecture.text_config(config)
    num_layers = text_config.get("num_hidden_layers")
    if type(num_layers) is not int or num_layers < 1:
        raise ModelError(
            f"num_hidden_layers is {num_layers!r}, expected a positive integer",
            where=where,
            hint="download config.json again",
        )
    shards = read_shards(folder)
    tensors = collect_tensors(shards, folder)
    units = find_units(tensors, architecture, text_config, num_layers, folder)
    weights = {linear.weight.name for unit in units for linear in unit.linears}
    headers = (part for shard in shards for part in (shard.header, str(shard.size).encode()))
    return Model(
        path=folder,
        config=config,
        text_config=text_config,
        architecture=architecture,
        tensors=tensors,
        units=units,
        passthrough=tuple(name for name in tensors if name not in weights),
        num_layers=num_layers,
        _headers=fingerprint([data, *headers]),
    )


def _to_float32(data: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "F32":
        return data.view("<f4").astype(np.float32, copy=False)
    if dtype == "F16":
        return data.view("<f2").astype(np.float32)
    bits = data.view("<u2").astype(np.uint32)  # BF16 is the upper half of a float32
    bits <<= 16
    return bits.view(np.float32)


def _count(number: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
