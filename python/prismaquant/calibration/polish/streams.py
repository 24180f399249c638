"""`Streams`: hidden states of the source and of the quantized builds, moved through the layers side by side.

``source`` is the model. ``prefix`` has the new weights of every unit so far and exact inputs: the difference between
its inputs and the source's is what a unit can make up for. ``before`` and ``after`` are the builds as they are served,
inputs quantized, on held-out windows only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from prismaquant.calibration.memory import hidden_size
from prismaquant.calibration.polish.head import divergences
from prismaquant.calibration.polish.layer import ServedInput, input_of, inputs_of, served_inputs, with_weights
from prismaquant.calibration.polish.unit import Inputs, Weights
from prismaquant.streaming import Batch, Spool, Windows
from prismaquant.streaming.forward import Forward, check_windows
from prismaquant.streaming.linears import find_banks, find_linears
from prismaquant.streaming.skeleton import Skeleton

if TYPE_CHECKING:
    from prismaquant.calibration.draw import Draw
    from prismaquant.model import Model, Unit
    from prismaquant.types import Array

__all__ = ["LAYERS_HELD", "Streams", "states_bytes"]

#: How often the weights of a layer are in memory: the source's, before and after, and what is read or decoded.
LAYERS_HELD = 4

_BATCH_WINDOWS = 8
_ALL = ("source", "prefix", "before", "after")


def states_bytes(model: Model, draw: Draw) -> int:
    """Bytes of the hidden states of all streams, which wait in front of a layer, and of the inputs of its units."""
    inputs = [0] * model.num_layers
    for unit in model.units:
        inputs[unit.layer] += unit.linears[0].columns
    states = hidden_size(model) * (2 * draw.statistics.size + 4 * draw.prices.size)
    return 4 * (states + max(inputs) * (draw.statistics.size + draw.prices.size))


class Streams:
    """All streams in front of one layer.

    Parameters
    ----------
    draw
        Windows for statistics, and those for prices, which are held out.
    spool
        Where the states wait.
    device, threads
        As in `probe`.

    Attributes
    ----------
    skeleton
        The model.
    linears
        Per layer: name -> module of each Linear of its units, experts aside.
    fit, held_out
        The batches of either kind of windows.
    """

    def __init__(self, model: Model, draw: Draw, spool: Spool, device: str, threads: int | None) -> None:
        parts = [Windows(draw.statistics), Windows(draw.prices)]
        check_windows(model, parts, seed=0, batch_windows=_BATCH_WINDOWS)
        self.fit = parts[0].batches(0, 0, _BATCH_WINDOWS)
        self.held_out = parts[1].batches(1, len(draw.statistics), _BATCH_WINDOWS)
        self.skeleton = Skeleton(model, device)
        self.linears = find_linears(model, self.skeleton)
        self._banks = find_banks(model, self.skeleton)
        self._forward = Forward(self.skeleton)
        self._spool, self._threads = spool, threads

    def embed(self) -> None:
        """Start all streams. The embedding must be filled."""
        for batch in self._batches():
            hidden = self._forward.embed(batch)
            for stream in _streams(batch):
                self._spool.put(_state(stream, batch), hidden)

    def advance_source(self, layer: int, units: Sequence[Unit]) -> None:
        """Move the source behind ``layer``, and keep the inputs of ``units`` on the way."""
        firsts = {unit.name: self.linears[layer][unit.linears[0].name] for unit in units}
        for batch in self._batches():
            output, inputs = inputs_of(firsts, self._run("source", layer, batch))
            self._spool.put(_state("source", batch), output)
            for unit in units:
                self._spool.put(_input(unit, batch), inputs[unit.name])

    def inputs(self, unit: Unit, batches: Sequence[Batch], earlier: Weights) -> Iterator[Inputs]:
        """Input of ``unit`` in the source and in the prefix, where the units before it have ``earlier`` weights."""
        first = self.linears[unit.layer][unit.linears[0].name]
        for batch in batches:
            source = self._spool.get(_input(unit, batch)).to(self.skeleton.device)
            with with_weights(self.skeleton, earlier):
                prefix = input_of(first, self._run("prefix", unit.layer, batch))
            yield source, prefix

    def advance(
        self,
        layer: int,
        units: Sequence[Unit],
        *,
        before: Weights,
        after: Weights,
        served: Mapping[str, ServedInput],
    ) -> None:
        """Move the other streams behind ``layer``, and forget the inputs of ``units``.

        Parameters
        ----------
        before, after
            The weights of either build, where they are not the source's.
        served
            By the name of the Linear, where inputs are quantized.
        """
        for batch in self._batches():
            for stream in _streams(batch)[1:]:
                weights = before if stream == "before" else after
                inputs = {} if stream == "prefix" else served
                with (
                    with_weights(self.skeleton, weights),
                    served_inputs(self.linears[layer], self._banks[layer], inputs, self._threads),
                ):
                    self._spool.put(_state(stream, batch), self._run(stream, layer, batch)())
            for unit in units:
                self._spool.take(_input(unit, batch))

    def divergences(self) -> Array:
        """Of both builds behind the last layer: float64 ``[windows, 2]``, nats, summed over each held-out window.

        The head must be filled.
        """
        rows = []
        for batch in self.held_out:
            source, before, after = (
                self._spool.get(_state(stream, batch)).to(self.skeleton.device)
                for stream in ("source", "before", "after")
            )
            for window in range(len(source)):
                rows.append(divergences(self.skeleton, source[window], [before[window], after[window]]))
        return np.array(rows)

    def clear(self) -> None:
        """Forget all states."""
        self._spool.clear()

    def _batches(self) -> tuple[Batch, ...]:
        return (*self.fit, *self.held_out)

    def _run(self, stream: str, layer: int, batch: Batch) -> Callable[[], torch.Tensor]:
        hidden = self._spool.get(_state(stream, batch)).to(self.skeleton.device)
        return lambda: self._forward.layer(layer, hidden, batch)


def _streams(batch: Batch) -> tuple[str, ...]:
    return _ALL if batch.part else _ALL[:2]


def _state(stream: str, batch: Batch) -> str:
    return f"{stream}-{batch.name}"


def _input(unit: Unit, batch: Batch) -> str:
    return f"input-{unit.name}-{batch.name}"
