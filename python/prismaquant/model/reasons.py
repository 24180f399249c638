"""Tensors of the source that are kept as they are: why (`reason_of`), and which lie beside the language model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prismaquant.model.units import is_matrix

if TYPE_CHECKING:
    from prismaquant.model.architectures import Architecture
    from prismaquant.model.headers import TensorInfo

__all__ = ["UNKNOWN", "WRAPPERS", "outside_of", "reason_of"]

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
        ``"embedding"``, ``"output head"``, ``"MTP layer"``, ``"outside of the language model: <module>"``,
        ``"bias"``, ``"no matrix"`` (norms, and other vectors and scalars), ``"kept by the architecture entry"``
        (routers, convolutions), or ``"unknown to the architecture entry"``.
    """
    path = _path(tensor)
    if path[0] == "mtp":
        return "MTP layer"
    if _is_outside(path):
        return f"outside of the language model: {path[0]}"
    if path[0] == "embed_tokens":
        return "embedding"
    if path[0] == "lm_head":
        return "output head"
    layer, _, place = tensor.name.removeprefix(f"{architecture.layers}.").partition(".")
    if layer.isdecimal() and int(layer) >= num_layers:
        return "MTP layer"
    if path[-1] == "bias":
        return "bias"
    if not is_matrix(tensor):
        return "no matrix"
    module = place.rpartition(".")[0]
    return "kept by the architecture entry" if module in architecture.kept else UNKNOWN


def outside_of(tensors: Iterable[TensorInfo]) -> tuple[str, ...]:
    """Of ``tensors``, which belong to no unit, the modules outside of the language model that have matrices; sorted."""
    paths = (_path(tensor) for tensor in tensors if is_matrix(tensor))
    return tuple(sorted({path[0] for path in paths if _is_outside(path)}))


def _path(tensor: TensorInfo) -> list[str]:
    return [part for part in tensor.name.split(".") if part not in WRAPPERS]


def _is_outside(path: list[str]) -> bool:
    return path[0] not in _WITHIN and len(path) > 1
