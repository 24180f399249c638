"""The modules of the units of a model, by the layer that they lie in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from prismaquant.errors import ModelError
from prismaquant.model.kept import NO_LAYER
from prismaquant.streaming.experts import Bank, find_bank

if TYPE_CHECKING:
    from prismaquant.model import Model
    from prismaquant.streaming.skeleton import Skeleton

__all__ = ["find_banks", "find_linears"]


def find_linears(model: Model, skeleton: Skeleton) -> dict[int, dict[str, nn.Linear]]:
    """Per layer: name -> module of each Linear of the model's units, experts aside."""
    found: dict[int, dict[str, nn.Linear]] = {layer: {} for layer in (*range(len(skeleton.layers)), NO_LAYER)}
    for unit in model.units:
        for linear in unit.linears if not unit.experts else ():
            module = skeleton.submodule(linear.name)
            if not isinstance(module, nn.Linear):
                raise ModelError(f"is a {type(module).__name__}, not a Linear", where=linear.name)
            found[unit.layer][linear.name] = module
    return found


def find_banks(model: Model, skeleton: Skeleton) -> dict[int, list[Bank]]:
    """Per layer: its banks of experts."""
    found: dict[int, list[Bank]] = {layer: [] for layer in (*range(len(skeleton.layers)), NO_LAYER)}
    for unit in model.units:
        if unit.experts:
            found[unit.layer].append(find_bank(skeleton.submodule(unit.module), unit))
    return found
