"""What a probe takes in memory: the layer in work, and the hidden states that wait, which can wait on disk instead."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections import Counter
from typing import TYPE_CHECKING

from prismaquant.environment import machine_memory
from prismaquant.errors import ModelError, RefusedError
from prismaquant.model.kept import NO_LAYER
from prismaquant.model.towers import is_of_tower
from prismaquant.quantity import format_bytes
from prismaquant.rendering.grams import output_gram_bytes

if TYPE_CHECKING:
    from prismaquant.calibration.draw import Draw
    from prismaquant.calibration.towers import SampleDraw
    from prismaquant.model import Model

__all__ = ["fits_in_memory", "hidden_size", "return_memory", "states_bytes", "working_bytes"]

#: The interpreter with torch and transformers, and the arrays of one batch.
_BASE = 1 << 30


def return_memory() -> None:
    """Give what is free back to the system: glibc keeps freed arrays in pieces that the next layer may not fit."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def hidden_size(model: Model) -> int:
    """Width of the hidden states.

    Raises
    ------
    ModelError
        ``config.json`` does not say it.
    """
    width = model.text_config.get("hidden_size")
    if not isinstance(width, int):
        raise ModelError(f"hidden_size is {width!r}, expected a number", where=str(model.path / "config.json"))
    return width


def states_bytes(model: Model, draw: Draw | SampleDraw, probes: int, price_probes: int) -> int:
    """Bytes of all hidden states and gradients that wait between the two sweeps, as `walk` keeps them."""
    kept = model.num_layers + 1 + any(unit.layer == NO_LAYER for unit in model.units)  # an MTP layer's, too
    statistics, ranges, prices = draw.tokens
    tokens = statistics * (kept + probes) + ranges * (kept + 1) + prices * (kept + price_probes)
    return 4 * hidden_size(model) * tokens


def working_bytes(model: Model, layers_held: int = 2) -> int:
    """About what is needed beside the states: the largest layer, so often as it is held in float32, and the Grams."""
    layers: Counter[int] = Counter()
    together: Counter[str] = Counter()  # Grams of a bank, and of all towers
    gram = 0
    for unit in model.units:
        layers[unit.layer] += 4 * unit.parameters
        for linear in unit.linears:
            gram = max(gram, 4 * linear.columns**2, output_gram_bytes(linear.rows))
        if unit.experts or is_of_tower(model, unit):
            grams = sum(4 * x.columns**2 + output_gram_bytes(x.rows) for x in unit.linears)
            together[unit.name if unit.experts else ""] += grams
    others = [4 * model.tensors[name].parameters for name in model.passthrough]
    return _BASE + layers_held * max(*layers.values(), *others, 0) + 5 * gram + max(together.values(), default=0)


def fits_in_memory(model: Model, states: int, max_memory: int | None, layers_held: int = 2) -> bool:
    """Whether the states can wait in memory.

    Parameters
    ----------
    states
        Bytes of the states.
    max_memory
        Bytes that may be used; ``None``: half of the machine's memory, and no refusal.
    layers_held
        How often the weights of a layer are in memory.

    Raises
    ------
    RefusedError
        Even without the states more is needed than ``max_memory``.
    """
    needed = working_bytes(model, layers_held)
    if max_memory is None:
        return needed + states <= machine_memory() // 2
    if needed > max_memory:
        raise RefusedError(
            f"{format_bytes(max_memory)} are allowed, about {format_bytes(needed)} are needed for the largest layer",
            where="max_memory",
            hint="allow more (--max-memory)",
        )
    return needed + states <= max_memory
