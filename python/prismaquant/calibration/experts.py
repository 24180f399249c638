"""Experts that few tokens chose: they are solved for with what is known of the whole bank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from prismaquant.files.sensitivity import least_tokens

if TYPE_CHECKING:
    from prismaquant.calibration.collect import LinearStatistics
    from prismaquant.model import Unit
    from prismaquant.rendering.render import Grams
    from prismaquant.types import Tensor

__all__ = ["coverage", "pool"]


def coverage(unit: Unit, statistics: Mapping[str, LinearStatistics]) -> tuple[int, ...]:
    """Tokens that each expert of ``unit`` saw; empty for units that are no banks."""
    return tuple(statistics[linear.name].tokens for linear in unit.linears[::3]) if unit.experts else ()


def pool(unit: Unit, grams: Mapping[str, Grams]) -> dict[str, Grams]:
    """The Grams of the Linears of ``unit``, where experts with less than `least_tokens` get those of the bank, too.

    The Gram of such an expert is shrunk to the pooled one. An expert without any token has the pooled ones as its own;
    one that was shown all inputs but chosen by no token, the pooled Gram of the output gradients.
    """
    found = {linear.name: grams[linear.name] for linear in unit.linears if linear.name in grams}
    least = least_tokens(unit.linears[0].columns)
    if not unit.experts or not found or all(each.tokens >= least and each.output_tokens for each in found.values()):
        return found
    pooled: dict[int, Grams] = {}
    for number in range(3):  # gate, up, down; gate and up share their input, and its Gram
        alike = [grams[linear.name] for linear in unit.linears[number::3]]
        pooled[number] = replace(
            alike[0],
            gram=pooled[0].gram if number == 1 else _sum([each.gram for each in alike]),
            tokens=sum(each.tokens for each in alike),
            output_gram=_sum([each.output_gram for each in alike]),
            output_tokens=sum(each.output_tokens for each in alike),
        )
    for number, linear in enumerate(unit.linears):
        own, bank = found[linear.name], pooled[number % 3]
        if own.tokens == 0:
            found[linear.name] = bank
            continue
        if own.output_tokens == 0:
            own = replace(own, output_gram=bank.output_gram, output_tokens=bank.output_tokens)
        if own.tokens < least:
            own = replace(own, pooled_gram=bank.gram, pooled_tokens=bank.tokens)
        found[linear.name] = own
    return found


def _sum(grams: list[Tensor]) -> torch.Tensor:
    total = torch.as_tensor(grams[0]).clone()
    for gram in grams[1:]:
        total += torch.as_tensor(gram)
    return total
