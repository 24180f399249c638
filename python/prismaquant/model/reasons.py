"""Tensors of the source that are kept as they are: why (`reason_of`), and which lie beside the language model."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import dropwhile
from typing import TYPE_CHECKING

from prismaquant.model.units import is_matrix

if TYPE_CHECKING:
    from prismaquant.model.architectures import Architecture
    from prismaquant.model.headers import TensorInfo

__all__ = [
    "EMBEDDING",
    "HEAD",
    "MTP",
    "OUTSIDE",
    "UNKNOWN",
    "WRAPPERS",
    "is_embedding",
    "outside_of",
    "reason_of",
    "without_wrappers",
]

EMBEDDING = "embedding"
HEAD = "output head"
MTP = "MTP layer"
#: Before the name of the module.
OUTSIDE = "outside of the language model: "
UNKNOWN = "unknown to the architecture entry"

#: Around the language model, in an order that differs between models.
WRAPPERS = ("model", "language_model")

_WITHIN = ("layers", "embed_tokens", "norm", "lm_head")


def reason_of(tensor: TensorInfo, architecture: Architecture, num_layers: int) -> str:
    """Why ``tensor``, which belongs to no unit, is not quantized.

    Parameters
    ----------
    num_layers
        Of the decoder: layers behind the last one predict further tokens (MTP).

    Returns
    -------
    str
        `EMBEDDING`, `HEAD`, `MTP`, `OUTSIDE` and the module, ``"bias"``, ``"no matrix"`` (norms, and other vectors and
        scalars), ``"kept by the architecture entry"`` (routers, convolutions), or `UNKNOWN`.
    """
    path = without_wrappers(tensor.name)
    if path[0] == "mtp":
        return MTP
    if _is_outside(path):
        return f"{OUTSIDE}{path[0]}"
    if path[0] == "embed_tokens":
        return EMBEDDING
    if path[0] == "lm_head":
        return HEAD
    layer, _, place = tensor.name.removeprefix(f"{architecture.layers}.").partition(".")
    if layer.isdecimal() and int(layer) >= num_layers:
        return MTP
    if path[-1] == "bias":
        return "bias"
    if not is_matrix(tensor):
        return "no matrix"
    module = place.rpartition(".")[0]
    return "kept by the architecture entry" if module in architecture.kept else UNKNOWN


def outside_of(tensors: Iterable[TensorInfo], linears: Collection[str] = ()) -> tuple[str, ...]:
    """Of ``tensors``, which belong to no unit, the modules outside of the language model that have matrices; sorted.

    The outermost ones that hold none of ``linears``, names of Linears of units.
    """
    taken = {".".join(path[:end]) for path in map(without_wrappers, linears) for end in range(1, len(path) + 1)}
    found = set()
    for tensor in tensors:
        path = without_wrappers(tensor.name)
        if is_matrix(tensor) and _is_outside(path):
            modules = (".".join(path[:end]) for end in range(1, len(path)))
            found.add(next((module for module in modules if module not in taken), None))
    return tuple(sorted(module for module in found if module is not None))


def is_embedding(module: str) -> bool:
    """Whether rows of the weight of ``module`` are looked up by a number, by its name."""
    return re.search(r"(?:^|[._])embed(?:dings?|_tokens\w*)?$", module) is not None


def without_wrappers(name: str) -> list[str]:
    """Parts of ``name``, without those that wrap the language model."""
    return list(dropwhile(WRAPPERS.__contains__, name.split(".")))


def _is_outside(path: list[str]) -> bool:
    return path[0] not in _WITHIN and len(path) > 1
