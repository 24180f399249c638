"""Units beside the decoder layers: head, MTP layers, towers. Unless pinned, they stay as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prismaquant.model.reasons import HEAD, MTP, OUTSIDE, is_embedding
from prismaquant.model.units import WEIGHT_DTYPES, Linear, Unit, unpack_bank

if TYPE_CHECKING:
    from prismaquant.model.architectures import Architecture
    from prismaquant.model.headers import TensorInfo

__all__ = ["NO_LAYER", "find_kept_units", "group_siblings"]

#: `Unit.layer` of a unit that lies in no decoder layer.
NO_LAYER = -1

#: Modules that vLLM 0.33 builds as plain layers, whatever the configuration says (deepseek_mtp.py, mistral3.py).
_PLAIN = ("eh_proj", "merging_layer")


def find_kept_units(
    tensors: Mapping[str, TensorInfo],
    reasons: Mapping[str, str],
    architecture: Architecture,
    config: Mapping[str, Any],
    folder: Path,
) -> tuple[Unit, ...]:
    """Every unit that could be made of passed-through tensors.

    Embeddings, routers, convolutions and vectors are in none: some reader does not take them for a Linear.

    Parameters
    ----------
    reasons
        Name of each passed-through tensor -> why it is one.
    config
        The fields of the language model.
    """
    counts = {entry.name: entry.experts(config, str(folder)) for entry in architecture.units}
    weights = {}
    for name in reasons:
        if _is_linear(tensors[name], reasons[name], architecture):
            weights[name.removesuffix(".weight")] = tensors[name]
    for entry in architecture.units:
        for name in reasons if entry.is_bank else ():
            bank = name.removesuffix(".gate_up_proj")
            if bank != name and bank.endswith(f".{entry.name}") and _is_packed(tensors, bank, counts[entry.name]):
                prefix = bank.removesuffix(f".{entry.name}")
                weights |= unpack_bank(tensors, entry, prefix, counts[entry.name], folder)
    return tuple(
        Unit(
            name,
            NO_LAYER,
            tuple(Linear(linear, weights[linear]) for linear in linears),
            counts[name_of_entry] if name_of_entry else 0,
            architecture.module_name(name),
        )
        for name, linears, name_of_entry in group_siblings(weights, architecture, counts)
    )


def group_siblings(
    linears: Collection[str], architecture: Architecture, experts: Mapping[str, int]
) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Put ``linears``, names from anywhere in the model, into units: those together that an entry names as siblings.

    Parameters
    ----------
    experts
        Name of each entry -> how many experts its banks have.

    Yields
    ------
    tuple
        Name of the unit, names of its Linears, and the name of the entry if it is a bank (else empty).
    """
    left = dict.fromkeys(sorted(linears))
    for entry in architecture.units:
        of_bank = entry.names(experts[entry.name])
        # Towers have siblings of the same names in modules of other names.
        unit, *names = (entry.name, *of_bank) if entry.is_bank else map(_last, (entry.name, *of_bank))
        for name in [name for name in left if name.endswith(f".{names[0]}")] if len(names) > 1 else ():
            prefix = name.removesuffix(names[0])
            found = tuple(prefix + each for each in names)
            if all(each in left for each in found):
                yield prefix + unit, found, entry.name if entry.is_bank else ""
                for each in found:
                    del left[each]
    for name in left:
        yield name, (name,), ""


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _is_packed(tensors: Mapping[str, TensorInfo], bank: str, experts: int) -> bool:
    """Whether both tensors of ``bank`` are there, as those of the layers are; of another form they stay as they are."""
    found = [tensors.get(f"{bank}.{name}") for name in ("gate_up_proj", "down_proj")]
    shapes = [tensor.shape for tensor in found if tensor is not None and tensor.dtype in WEIGHT_DTYPES]
    if len(shapes) < 2 or any(len(shape) != 3 or shape[0] != experts or 0 in shape for shape in shapes):
        return False
    (_, fused, columns), (_, rows, width) = shapes
    return (fused, columns) == (2 * width, rows)


def _is_linear(tensor: TensorInfo, reason: str, architecture: Architecture) -> bool:
    module, _, suffix = tensor.name.rpartition(".")
    return (
        (reason in (HEAD, MTP) or reason.startswith(OUTSIDE))
        and suffix == "weight"
        and len(tensor.shape) == 2
        and 0 not in tensor.shape
        and tensor.dtype in WEIGHT_DTYPES
        and not is_embedding(module)
        and _last(module) not in _PLAIN
        and not any(module.endswith(f".{kept}") for kept in architecture.kept)
    )
