"""`walk`: the inputs and output gradients of every Linear, one layer at a time, from a model that is never whole.

Two sweeps. Forward, first layer to last: the hidden states that enter each layer are kept. Then logits and residuals
(`residual`), and backward, last layer to first: each layer is run again from its kept input, this time with gradients.
A layer's weights are read when its turn comes and dropped after it. A layer that predicts a further token is visited
between the sweeps, with the residuals of its own predictions; towers at the end, with the gradients in all that they
gave to the layers.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from prismaquant.files.sensitivity import CacheRange
from prismaquant.model.kept import NO_LAYER
from prismaquant.progress import Event, Progress, silent
from prismaquant.streaming import calls
from prismaquant.streaming.caches import watch_caches
from prismaquant.streaming.forward import Batch, Forward, Windows, check_finite, check_windows
from prismaquant.streaming.gradients import observe_layer, observe_tower
from prismaquant.streaming.linears import find_banks, find_linears
from prismaquant.streaming.observation import Observation
from prismaquant.streaming.residual import top_gradients
from prismaquant.streaming.skeleton import Skeleton
from prismaquant.streaming.spool import Spool

if TYPE_CHECKING:
    from prismaquant.model import Model
    from prismaquant.streaming.mtp import Mtp
    from prismaquant.streaming.samples import Samples

__all__ = ["Visit", "walk"]


@dataclass(frozen=True, slots=True)
class Visit:
    """One layer run on one batch of windows.

    Attributes
    ----------
    layer
        Index of the layer; `NO_LAYER` for the one that predicts a further token, and for towers.
    batch
        The windows, and the part they are of; those of that layer lack their first token. Towers are visited once for
        each probe.
    linears
        Name of each Linear of the layer's units -> what it saw; ``tokens = windows of the batch * seq_len``, for an
        expert those that were routed to it, maybe none. Of towers those that the sample reaches, with its patches or
        frames as their tokens.
    caches
        What the attentions of the layer would leave in a KV cache.
    """

    layer: int
    batch: Batch
    linears: dict[str, Observation]
    caches: tuple[CacheRange, ...] = ()

    @property
    def part(self) -> int:
        """Index of the `Windows` that the batch is of."""
        return self.batch.part

    def __repr__(self) -> str:
        return f"Visit(layer {self.layer}, batch {self.batch.name}, {len(self.linears)} linears)"


def walk(
    model: Model,
    parts: Sequence[Windows | Samples],
    *,
    seed: int = 0,
    batch_windows: int = 8,
    skip: Container[int] = (),
    show_all: Container[int] = (),
    spool: Spool | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> Generator[Visit, None, None]:
    """Visit the layers of ``model`` last to first; in each layer all batches of the first part, then of the next.

    Parameters
    ----------
    parts
        What to run it on. `Samples` reach the units of towers, which need them.
    seed
        Fixes the residuals, together with the window's index over all parts and the probe's; not the batch.
    batch_windows
        Windows times probes per run of a layer: memory against speed. Results differ by float rounding only.
    skip
        Layers that are passed without a visit: gradients go through them, nothing else is done. `NO_LAYER` is the one
        that predicts a further token, and the towers; they are visited if ``model`` has units in them.
    show_all
        Indices of the parts on which experts also show the inputs of the tokens that were not routed to them
        (`Observation.all_inputs`): each computes them all.
    spool
        Where hidden states and gradients wait; by default in memory.
    device
        Of the computation, as torch names it.

    Raises
    ------
    ModelError
        The model cannot be built or cannot be walked layer by layer; names the layer.
    ArgumentError, DataError
        As `check_windows`.
    NumericError
        NaN or infinity in a weight (names the tensor) or in the activations or gradients (names layer and window).

    Notes
    -----
    Memory: one layer, or all towers, and what they keep for their gradients on one batch. The spool holds one float32
    ``[windows, seq_len, hidden]`` per layer and per probe. A consumer may stop early; closing the iterator frees
    everything.
    """
    check_windows(model, parts, seed=seed, batch_windows=batch_windows)
    first = [sum(map(len, parts[:number])) for number in range(len(parts))]
    batches = [
        batch for number, part in enumerate(parts) for batch in part.batches(number, first[number], batch_windows)
    ]
    return _Walk(model, batches, seed, skip, show_all, spool or Spool(), device, progress).visits()


class _Walk:
    def __init__(
        self,
        model: Model,
        batches: Sequence[Batch],
        seed: int,
        skip: Container[int],
        show_all: Container[int],
        spool: Spool,
        device: str,
        progress: Progress,
    ) -> None:
        self._skeleton = Skeleton(model, device)
        self._forward = Forward(self._skeleton)
        self._batches, self._seed, self._skip = batches, seed, skip
        self._show_all, self._spool, self._progress = show_all, spool, progress
        self._prefix = model.architecture.layers
        self._linears = find_linears(model, self._skeleton, rounded=True)
        self._banks = find_banks(model, self._skeleton, rounded=True)
        self._entered: dict[str, list[int]] = {}  # name of each batch -> the layers that something is added in front of

    def visits(self) -> Generator[Visit, None, None]:
        skeleton = self._skeleton
        try:
            with skeleton.filled(skeleton.rest):
                self._embed()
                for layer in range(len(skeleton.layers)):
                    self._run(layer)
                if skeleton.mtp is not None and NO_LAYER not in self._skip:
                    yield from self._further(skeleton.mtp)
                self._top()
            for layer in reversed(range(len(skeleton.layers))):
                with skeleton.filled(skeleton.layer_tensors[layer]):
                    for number, batch in enumerate(self._batches):
                        seen = layer not in self._skip
                        with self._watch_caches(layer) as caches:
                            linears = self._backward(layer, batch, seen)
                        visit = Visit(layer, batch, linears, tuple(caches))
                        done = (len(skeleton.layers) - 1 - layer) * len(self._batches) + number + 1
                        self._report("backward", layer, done)
                        if seen:
                            yield visit
            if skeleton.towers and NO_LAYER not in self._skip:
                yield from self._visit_towers()
        finally:
            self._spool.clear()

    def _watch_caches(self, layer: int) -> AbstractContextManager[list[CacheRange]]:
        return watch_caches(self._skeleton.layers[layer], layer, f"{self._prefix}.{layer}")

    def _embed(self) -> None:
        with torch.no_grad(), self._skeleton.filled((*self._skeleton.embedding, *self._skeleton.towers)):
            for batch in self._batches:
                entered = self._forward.enter(batch)
                self._spool.put(_input_of(0, batch), entered.pop(0))
                self._entered[batch.name] = list(entered)
                for layer, states in entered.items():
                    self._spool.put(_added_to(layer, batch), states)

    @torch.no_grad()
    def _run(self, layer: int) -> None:
        """Put the output of ``layer`` for all windows."""
        with self._skeleton.filled(self._skeleton.layer_tensors[layer]):
            for number, batch in enumerate(self._batches):
                hidden = self._spool.get(_input_of(layer, batch)).to(self._skeleton.device)
                output = self._forward.layer(layer, hidden, batch)
                if layer + 1 in self._entered[batch.name]:
                    output += self._spool.take(_added_to(layer + 1, batch)).to(output.device)
                self._spool.put(_input_of(layer + 1, batch), output)
                self._report("forward", layer, layer * len(self._batches) + number + 1)

    def _top(self) -> None:
        """Put the gradients behind the last layer, float32 ``[probes, windows, seq_len, hidden]`` of each batch."""
        last, total = len(self._skeleton.layers), sum(len(batch.ids) for batch in self._batches)
        with self._skeleton.filled(self._skeleton.head):
            for batch in self._batches:
                hidden = self._spool.take(_input_of(last, batch)).to(self._skeleton.device)
                gradients = hidden.new_empty((batch.probes, *hidden.shape))
                for number in range(len(hidden)):
                    window = batch.window + number
                    gradients[:, number] = self._top_gradients(
                        partial(calls.logits, self._skeleton), hidden[number], batch, number
                    )
                    self._progress(Event("head", window + 1, total))
                if batch.counted is not None:
                    gradients *= batch.counted.to(gradients.device)[..., None]
                self._spool.put(_gradients_of(batch), gradients)

    def _top_gradients(
        self, logits_of: Callable[[torch.Tensor], torch.Tensor], hidden: torch.Tensor, batch: Batch, number: int
    ) -> torch.Tensor:
        """Of window ``number`` of ``batch``."""
        vocabulary, window = self._skeleton.vocabulary, batch.window + number
        return top_gradients(logits_of, vocabulary, hidden, window, batch.probes, self._seed)

    def _further(self, mtp: Mtp) -> Generator[Visit, None, None]:
        """Visit the layer that predicts a further token, from the states behind the last layer."""
        skeleton, forward = self._skeleton, self._forward
        batches = [replace(batch, ids=batch.ids[:, 1:]) for batch in self._batches]
        with skeleton.filled(skeleton.embedding):
            for batch in batches:
                self._spool.put(_next_of(batch), forward.embed(batch))
        decoder: Any = skeleton.decoder
        head: Any = skeleton.causal.get_output_embeddings()
        with skeleton.filled((*skeleton.head, *skeleton.mtp_tensors)):
            for number, batch in enumerate(batches):
                hidden = self._spool.get(_input_of(len(skeleton.layers), batch)).to(skeleton.device)
                embedded = self._spool.take(_next_of(batch)).to(skeleton.device)
                with torch.no_grad():
                    start = mtp.join(embedded, decoder.norm(hidden[:, :-1])).requires_grad_()

                def gradients_of(output: torch.Tensor, batch: Batch = batch) -> torch.Tensor:
                    check_finite(output, "MTP layer", batch)
                    windows = [
                        self._top_gradients(lambda states: head(mtp.norm(states)), states, batch, window)
                        for window, states in enumerate(output.detach())
                    ]
                    return torch.stack(windows, dim=1)

                run = partial(mtp, start, forward.call(mtp.like, batch))
                linears, banks = self._linears[NO_LAYER], self._banks[NO_LAYER]
                show_all = batch.part in self._show_all
                observed, _ = observe_layer(linears, banks, start, run, gradients_of, show_all=show_all)
                self._progress(Event("mtp", number + 1, len(batches)))
                yield Visit(NO_LAYER, batch, observed)

    def _visit_towers(self) -> Generator[Visit, None, None]:
        """Visit the towers on the samples, probe by probe, from the gradients in what they gave to the layers."""
        skeleton, linears = self._skeleton, self._linears[NO_LAYER]
        batches = [batch for batch in self._batches if batch.inputs]
        with skeleton.filled((*skeleton.rest, *skeleton.embedding, *skeleton.towers)):
            for number, batch in enumerate(batches):
                gradients = [self._spool.take(_gradients_of(batch))]
                gradients += [self._spool.take(_gradients_in(layer, batch)) for layer in self._entered[batch.name]]
                start = {name: x.detach().requires_grad_(x.is_floating_point()) for name, x in batch.inputs.items()}
                run = partial(self._forward.enter, replace(batch, inputs=start))
                on_device = [each.to(skeleton.device) for each in gradients]
                for observed in observe_tower(linears, run, on_device):
                    yield Visit(NO_LAYER, replace(batch, probes=1), observed)
                self._progress(Event("towers", number + 1, len(batches)))

    def _backward(self, layer: int, batch: Batch, seen: bool) -> dict[str, Observation]:
        """What the Linears of ``layer`` see, if wanted; replaces the gradients of ``batch`` by those in front of it."""
        start = self._spool.take(_input_of(layer, batch)).to(self._skeleton.device).requires_grad_()
        gradients = self._spool.take(_gradients_of(batch)).to(self._skeleton.device)
        run = partial(self._forward.layer, layer, start, batch)
        linears, banks = (self._linears[layer], self._banks[layer]) if seen else ({}, [])
        show_all = batch.part in self._show_all
        observed, before = observe_layer(linears, banks, start, run, lambda _: gradients, show_all=show_all)
        check_finite(before.abs().amax(dim=0), f"gradients of layer {layer}", batch)
        if layer in self._entered[batch.name]:
            self._spool.put(_gradients_in(layer, batch), before)
        self._spool.put(_gradients_of(batch), before)
        return observed

    def _report(self, stage: str, layer: int, done: int) -> None:
        self._progress(Event(stage, done, len(self._skeleton.layers) * len(self._batches), f"layer {layer}"))


def _input_of(layer: int, batch: Batch) -> str:
    return f"input-{layer}-{batch.name}"


def _gradients_of(batch: Batch) -> str:
    return f"gradients-{batch.name}"


def _gradients_in(layer: int, batch: Batch) -> str:
    return f"gradients-in-{layer}-{batch.name}"


def _added_to(layer: int, batch: Batch) -> str:
    return f"added-to-{layer}-{batch.name}"


def _next_of(batch: Batch) -> str:
    return f"next-{batch.name}"
