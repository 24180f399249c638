"""`Linear` and `Unit`: the weights that can be quantized, in the groups that must share one format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prismaquant.errors import ModelError
from prismaquant.model.architectures import Architecture
from prismaquant.model.headers import TensorInfo

__all__ = ["WEIGHT_DTYPES", "Linear", "Unit", "find_units", "is_matrix"]

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
        Where the weight lies.
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
    """What must share one format: one Linear, or siblings that engines fuse into one (q/k/v; gate/up).

    Attributes
    ----------
    name
        Name of the fused module (``"model.layers.0.self_attn.qkv_proj"``), or of the only Linear.
    layer
        Index of its decoder layer.
    linears
        In the order in which engines stack their rows. All have the same number of columns: they share their input.
    """

    name: str
    layer: int
    linears: tuple[Linear, ...]

    @property
    def parameters(self) -> int:
        """Weights of all Linears."""
        return sum(linear.parameters for linear in self.linears)

    def __repr__(self) -> str:
        shapes = " ".join(f"{linear.rows}x{linear.columns}" for linear in self.linears)
        return f"Unit({self.name}, {shapes})"


def find_units(
    tensors: Mapping[str, TensorInfo], architecture: Architecture, num_layers: int, folder: Path
) -> tuple[Unit, ...]:
    """The units of all decoder layers, in the order of the layers, then of the architecture entry.

    Raises
    ------
    ModelError
        If a weight that the entry names is missing, is not a matrix, has a dtype outside `WEIGHT_DTYPES`, or has not as
        many columns as its siblings.
    """
    units = []
    for layer in range(num_layers):
        prefix = f"{architecture.layers}.{layer}"
        for entry in architecture.units:
            linears = []
            for name in entry.linears:
                weight = tensors.get(f"{prefix}.{name}.weight")
                if weight is None:
                    raise _missing(tensors, architecture, f"{prefix}.{name}", layer, num_layers, folder)
                _check_weight(weight, folder)
                linears.append(Linear(f"{prefix}.{name}", weight))
            unit = Unit(f"{prefix}.{entry.name}", layer, tuple(linears))
            if len({linear.columns for linear in linears}) > 1:
                raise ModelError(
                    f"its Linears share one input, but have different numbers of columns: {linears}",
                    where=f"{folder}: {unit.name}",
                    hint="the folder mixes files of different models, download it again",
                )
            units.append(unit)
    return tuple(units)


def _check_weight(weight: TensorInfo, folder: Path) -> None:
    where = f"{folder / weight.file}: tensor {weight.name!r}"
    if weight.dtype not in WEIGHT_DTYPES:
        raise ModelError(
            f"the weight of a Linear has dtype {weight.dtype}, accepted are {', '.join(WEIGHT_DTYPES)}",
            where=where,
            hint="convert it to BF16; if the folder is quantized already, start from the model it was made from",
        )
    if len(weight.shape) != 2 or 0 in weight.shape:
        raise ModelError(
            f"the weight of a Linear has shape {list(weight.shape)}, expected [rows, columns]",
            where=where,
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
    return tensor.name.endswith(".weight") and len(tensor.shape) > 1
