"""`Linear` and `Unit`: the weights that can be quantized, in the groups that must share one format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prismaquant.errors import ModelError
from prismaquant.model.architectures import Architecture, UnitEntry, prefixes
from prismaquant.model.headers import TensorInfo

__all__ = ["WEIGHT_DTYPES", "Linear", "Unit", "find_units", "is_matrix", "unpack_bank"]

#: Stored dtypes that a weight may have; each converts to float32 without rounding.
WEIGHT_DTYPES = ("BF16", "F16", "F32")


@dataclass(frozen=True, slots=True)
class Linear:
    """A Linear layer ``y = x W^T``, by its weight of shape ``[rows, columns]`` = [out_features, in_features].

    Attributes
    ----------
    name
        Name of the module: the tensor's name without ``.weight``.
    weight
        Where the weight lies. That of an expert may be a part of a tensor ``[experts, ...]``, whose name it then has.
    """

    name: str
    weight: TensorInfo

    @property
    def rows(self) -> int:
        return self.weight.shape[0]

    @property
    def columns(self) -> int:
        return self.weight.shape[1]

    @property
    def parameters(self) -> int:
        """``rows * columns``."""
        return self.weight.parameters

    def __repr__(self) -> str:
        return f"Linear({self.name}, {self.rows} x {self.columns}, {self.weight.dtype})"


@dataclass(frozen=True, slots=True)
class Unit:
    """What must share one format: one Linear, siblings that engines fuse into one (q/k/v; gate/up), or all experts.

    Attributes
    ----------
    name
        Name of the fused module (``"model.layers.0.self_attn.qkv_proj"``), of the only Linear, or of the bank
        (``"model.layers.0.mlp.experts"``).
    layer
        Index of its decoder layer; `prismaquant.model.kept.NO_LAYER`: it lies in none.
    linears
        In the order in which engines stack their rows. All have the same number of columns: they share their input. In
        a bank: gate, up and down of each expert in turn; gate and up share their input, down takes what they make.
    experts
        How many experts the bank has; 0: it is no bank.
    module
        Name of the module that transformers has for it; another than ``name`` where its folders name it otherwise.
    """

    name: str
    layer: int
    linears: tuple[Linear, ...]
    experts: int = 0
    module: str = ""

    @property
    def siblings(self) -> tuple[tuple[Linear, ...], ...]:
        """Its Linears, those together that share their input: all, or of each expert gate and up, and then down."""
        if not self.experts:
            return (self.linears,)
        starts = range(0, len(self.linears), 3)
        return tuple(part for i in starts for part in (self.linears[i : i + 2], self.linears[i + 2 : i + 3]))

    @property
    def parameters(self) -> int:
        """Weights of all Linears."""
        return sum(linear.parameters for linear in self.linears)

    def __repr__(self) -> str:
        if self.experts:
            shapes = " ".join(f"{linear.rows}x{linear.columns}" for linear in self.linears[:3])
            return f"Unit({self.name}, {self.experts} experts of {shapes})"
        shapes = " ".join(f"{linear.rows}x{linear.columns}" for linear in self.linears)
        return f"Unit({self.name}, {shapes})"


def find_units(
    tensors: Mapping[str, TensorInfo],
    architecture: Architecture,
    config: Mapping[str, Any],
    num_layers: int,
    folder: Path,
) -> tuple[Unit, ...]:
    """The units of all decoder layers, in the order of the layers, then of the architecture entry.

    Raises
    ------
    ModelError
        If a weight that the entry names is missing, is not a matrix, has a dtype outside `WEIGHT_DTYPES`, or has not as
        many columns as its siblings.
    """
    units = []
    present = prefixes(tensors)
    for layer in range(num_layers):
        prefix = f"{architecture.layers}.{layer}"
        for entry in architecture.of_layer(layer, present):
            experts = entry.experts(config, f"{folder / 'config.json'}")
            packed = unpack_bank(tensors, entry, prefix, experts, folder) if experts else {}
            linears = []
            for name in entry.names(experts):
                weight = packed.get(f"{prefix}.{name}") or tensors.get(f"{prefix}.{name}.weight")
                if weight is None:
                    raise _missing(tensors, architecture, f"{prefix}.{name}", layer, num_layers, folder)
                _check_weight(weight, folder)
                linears.append(Linear(f"{prefix}.{name}", weight))
            name = f"{prefix}.{entry.name}"
            unit = Unit(name, layer, tuple(linears), experts, architecture.module_name(name))
            if experts:
                _check_bank(unit, tensors, folder)
            elif len({linear.columns for linear in linears}) > 1:
                raise ModelError(
                    f"its Linears share one input, but have different numbers of columns: {linears}",
                    where=f"{folder}: {unit.name}",
                    hint="the folder mixes files of different models, download it again",
                )
            units.append(unit)
    return tuple(units)


def unpack_bank(
    tensors: Mapping[str, TensorInfo], entry: UnitEntry, prefix: str, experts: int, folder: Path
) -> dict[str, TensorInfo]:
    """Name of each Linear of the bank -> its part of the packed tensors; empty if they are not packed.

    ``gate_up_proj [experts, 2 rows, columns]`` has the rows of gate first, so that every matrix is one range of bytes.
    """
    bank = f"{prefix}.{entry.name}"
    fused, down = (tensors.get(f"{bank}.{name}") for name in ("gate_up_proj", "down_proj"))
    if fused is None or down is None:
        return {}
    for tensor in (fused, down):
        if len(tensor.shape) != 3 or tensor.shape[0] != experts or 0 in tensor.shape:
            raise ModelError(
                f"has shape {list(tensor.shape)}, expected [{experts}, rows, columns]: {experts} experts",
                where=f"{folder / tensor.file}: tensor {tensor.name!r}",
                hint="config.json and weights must be of the same model",
            )
    if fused.shape[1] % 2:
        raise ModelError(
            f"has {fused.shape[1]} rows, expected those of gate and as many of up",
            where=f"{folder / fused.file}: tensor {fused.name!r}",
        )
    names = entry.names(experts)
    halves = _split(fused, 2 * experts)
    parts = [part for e, last in enumerate(_split(down, experts)) for part in (*halves[2 * e : 2 * e + 2], last)]
    return {f"{prefix}.{name}": part for name, part in zip(names, parts, strict=True)}


def _split(tensor: TensorInfo, parts: int) -> list[TensorInfo]:
    """``tensor [experts, rows, columns]`` as ``parts`` matrices of equal size."""
    experts, rows, columns = tensor.shape
    shape, size = (experts * rows // parts, columns), tensor.nbytes // parts
    begins = [tensor.begin + index * size for index in range(parts)]
    return [replace(tensor, shape=shape, begin=begin, end=begin + size) for begin in begins]


def _check_bank(unit: Unit, tensors: Mapping[str, TensorInfo], folder: Path) -> None:
    """All experts are alike, their three Linears fit each other, and there are no more of them."""
    gate, up, down = unit.linears[:3]
    shapes = [(gate.rows, gate.columns), (gate.rows, gate.columns), (gate.columns, gate.rows)]
    for number, linear in enumerate(unit.linears):
        if (linear.rows, linear.columns) != shapes[number % 3]:
            raise ModelError(
                f"is {linear.rows} x {linear.columns}, beside {gate!r} it should be "
                f"{shapes[number % 3][0]} x {shapes[number % 3][1]}",
                where=f"{folder}: {linear.name}",
                hint="the folder mixes files of different models, download it again",
            )
    for linear in (gate, up, down):
        more = f"{unit.name}.{unit.experts}.{linear.name.rpartition('.')[2]}.weight"
        if more in tensors:
            raise ModelError(
                f"is there, but config.json says that there are {unit.experts} experts",
                where=f"{folder}: {more}",
                hint="config.json and weights must be of the same model",
            )


def _check_weight(weight: TensorInfo, folder: Path) -> None:
    def where() -> str:  # of few weights, and there can be a hundred thousand
        return f"{folder / weight.file}: tensor {weight.name!r}"

    if weight.dtype not in WEIGHT_DTYPES:
        raise ModelError(
            f"the weight of a Linear has dtype {weight.dtype}, accepted are {', '.join(WEIGHT_DTYPES)}",
            where=where(),
            hint="convert it to BF16; if the folder is quantized already, start from the model it was made from",
        )
    if len(weight.shape) != 2 or 0 in weight.shape:
        raise ModelError(
            f"the weight of a Linear has shape {list(weight.shape)}, expected [rows, columns]",
            where=where(),
            hint="the file does not fit the architecture that config.json names",
        )


def _missing(
    tensors: Mapping[str, TensorInfo],
    architecture: Architecture,
    name: str,
    layer: int,
    num_layers: int,
    folder: Path,
) -> ModelError:
    prefix = f"{architecture.layers}.{layer}."
    present = [key for key in tensors if key.startswith(prefix)]
    if present:
        unknown = sorted(
            key.removeprefix(prefix)
            for key in present
            if is_matrix(tensors[key]) and key.removeprefix(prefix) not in architecture.weights
        )
        hint = f"layer {layer} has {len(present)} other tensors" + (
            f", among them weights that the entry of {architecture.model_type!r} does not know: {', '.join(unknown)}"
            if unknown
            else "; a part of the model is missing, download it again"
        )
    else:
        hint = (
            f"no tensor begins with {prefix!r} although config.json says num_hidden_layers = {num_layers}; config.json "
            "and weights must be of the same model"
        )
    return ModelError(
        f"has no tensor {name + '.weight'!r}, which architecture {architecture.model_type!r} needs",
        where=str(folder),
        hint=hint,
    )


def is_matrix(tensor: TensorInfo) -> bool:
    """Whether ``tensor`` is a weight that could belong to a Linear (or to a bank of them), by name and shape."""
    return len(tensor.shape) > (1 if tensor.name.endswith(".weight") else 2)
