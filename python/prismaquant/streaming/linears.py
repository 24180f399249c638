"""The modules of the units of a model, by the layer that they lie in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from prismaquant.errors import ModelError
from prismaquant.model.kept import NO_LAYER
from prismaquant.streaming.experts import Bank, find_bank
from prismaquant.streaming.products import multiply_by, product_for

if TYPE_CHECKING:
    from prismaquant.model import Model
    from prismaquant.streaming.skeleton import Skeleton

__all__ = ["find_banks", "find_linears"]


def find_linears(model: Model, skeleton: Skeleton, *, rounded: bool = False) -> dict[int, dict[str, nn.Linear]]:
    """Per layer: name -> module of each Linear of the model's units, experts aside.

    Parameters
    ----------
    rounded
        Whether they may multiply in bfloat16 from now on (`product_for`).
    """
    found: dict[int, dict[str, nn.Linear]] = {layer: {} for layer in (*range(len(skeleton.layers)), NO_LAYER)}
    for unit in model.units:
        for linear in unit.linears if not unit.experts else ():
            module = skeleton.submodule(linear.name)
            if not isinstance(module, nn.Linear):
                raise ModelError(f"is a {type(module).__name__}, not a Linear", where=linear.name)
            found[unit.layer][linear.name] = module
            if rounded:
                multiply_by(product_for(linear, skeleton.device), module)
    return found


def find_banks(model: Model, skeleton: Skeleton, *, rounded: bool = False) -> dict[int, list[Bank]]:
    """Per layer: its banks of experts; ``rounded`` as in `find_linears`."""
    found: dict[int, list[Bank]] = {layer: [] for layer in (*range(len(skeleton.layers)), NO_LAYER)}
    for unit in model.units:
        if unit.experts:
            product = product_for(unit.linears[0], skeleton.device) if rounded else nn.functional.linear
            found[unit.layer].append(find_bank(skeleton.submodule(unit.module), unit, product))
    return found
