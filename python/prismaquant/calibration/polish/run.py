"""`polish`: one forward walk behind the quantized layers, each unit of the plan solved again for what reaches it.

Four streams of hidden states go through the layers. ``source`` is the model. ``prefix`` has the new weights of every
unit so far and exact inputs: the difference between its inputs and the source's is what a unit can make up for.
``before`` and ``after`` are the builds as they are served, inputs quantized, on held-out windows only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from prismaquant.calibration.memory import hidden_size
from prismaquant.calibration.polish.head import divergences, mean_and_error
from prismaquant.calibration.polish.layer import ServedInput, input_of, inputs_of, served_inputs, with_weights
from prismaquant.calibration.polish.unit import Inputs, decoded, mean_error, mismatch_grams
from prismaquant.calibration.threads import torch_threads
from prismaquant.errors import RefusedError, StageFileError
from prismaquant.files import record
from prismaquant.files.polish import Polish, PolishedUnit
from prismaquant.formats import BF16, get_scheme
from prismaquant.progress import Event, Progress, silent
from prismaquant.rendering.cache import render_cached
from prismaquant.rendering.render import render
from prismaquant.streaming import Batch, Spool, Windows
from prismaquant.streaming.forward import Forward, check_windows
from prismaquant.streaming.skeleton import Skeleton
from prismaquant.streaming.walk import find_banks, find_linears

if TYPE_CHECKING:
    from torch import nn

    from prismaquant.calibration.draw import Draw
    from prismaquant.files.plan import Plan
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model, Unit
    from prismaquant.rendering.cache import RenderCache
    from prismaquant.rendering.grams import GramStore
    from prismaquant.rendering.render import Rendering

__all__ = ["polish", "states_bytes"]

_BATCH_WINDOWS = 8
_UNIT_SCHEMA = "prismaquant.polished-unit/1"

Weights = dict[str, torch.Tensor]


def states_bytes(model: Model, draw: Draw) -> int:
    """Bytes of the hidden states of all streams, which wait in front of a layer, and of the inputs of its units."""
    inputs = [0] * model.num_layers
    for unit in model.units:
        inputs[unit.layer] += unit.linears[0].columns
    states = hidden_size(model) * (2 * draw.statistics.size + 4 * draw.prices.size)
    return 4 * (states + max(inputs) * (draw.statistics.size + draw.prices.size))


def polish(
    model: Model,
    plan: Plan,
    sensitivity: Sensitivity,
    draw: Draw,
    *,
    priced: RenderCache,
    polished: RenderCache,
    grams: GramStore,
    spool: Spool | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = silent,
) -> Polish:
    """Solve every quantized unit of ``plan`` again, with the shift for what the layers before it have lost.

    Of a unit the new rendering is kept if it lowers the error of the outputs, weighted by the Gram of their gradients,
    on the windows for prices. A unit that ``polished`` has already is not solved again.

    Parameters
    ----------
    draw
        The windows of the probe.
    priced
        Its renderings.
    polished
        Where the kept ones go (`polished_cache`).
    grams
        The Grams of the output gradients that the probe has kept.
    spool, device, threads
        As in `probe`.

    Raises
    ------
    RefusedError
        A rendering or a Gram of the probe is missing.
    ModelError, DataError, NumericError
        As `prismaquant.streaming.walk`.
    """
    run = _Run(model, plan, sensitivity, draw, priced, polished, grams, spool or Spool(), device, threads, progress)
    with torch.no_grad(), torch_threads(threads):
        return run.polish()


@dataclass(frozen=True, slots=True)
class _Choice:
    """The weights of a unit in the two builds."""

    before: Weights
    after: Weights


class _Run:
    def __init__(
        self,
        model: Model,
        plan: Plan,
        sensitivity: Sensitivity,
        draw: Draw,
        priced: RenderCache,
        polished: RenderCache,
        grams: GramStore,
        spool: Spool,
        device: str,
        threads: int | None,
        progress: Progress,
    ) -> None:
        parts = [Windows(draw.statistics), Windows(draw.prices)]
        check_windows(model, parts, seed=0, batch_windows=_BATCH_WINDOWS)
        self._fit = parts[0].batches(0, 0, _BATCH_WINDOWS)
        self._held_out = parts[1].batches(1, len(draw.statistics), _BATCH_WINDOWS)
        self._model, self._plan = model, plan
        self._schemes = {unit.name: unit.scheme for unit in plan.units}
        self._input_scales = {unit.name: unit.input_global_scale for unit in sensitivity.units}
        self._priced, self._polished, self._grams = priced, polished, grams
        self._spool, self._threads, self._progress = spool, threads, progress
        self._skeleton = Skeleton(model, device)
        self._forward = Forward(self._skeleton)
        self._linears = find_linears(model, self._skeleton)
        self._banks = find_banks(model, self._skeleton)
        self._exact = True  # nothing before the unit in work is quantized
        self._done: list[PolishedUnit] = []

    def polish(self) -> Polish:
        skeleton = self._skeleton
        try:
            with skeleton.filled(skeleton.rest):
                with skeleton.filled(skeleton.embedding):
                    for batch in (*self._fit, *self._held_out):
                        hidden = self._forward.embed(batch)
                        for stream in self._streams(batch):
                            self._spool.put(_state(stream, batch), hidden)
                for layer in range(len(skeleton.layers)):
                    with skeleton.filled(skeleton.layer_tensors[layer]):
                        self._advance_source(layer)
                        self._advance(layer, self._choose(layer))
                with skeleton.filled(skeleton.head):
                    per_window = self._measure()
        finally:
            self._spool.clear()
        seq_len = self._held_out[0].ids.shape[1]
        before, error_before = mean_and_error(per_window[:, 0], seq_len)
        after, error_after = mean_and_error(per_window[:, 1], seq_len)
        return Polish(
            model=self._model.fingerprint,
            plan=self._plan.fingerprint,
            preset=self._plan.preset,
            calibration=self._plan.calibration,
            predicted_kl=self._plan.predicted_kl,
            kl_before=before,
            kl_after=after,
            standard_error_before=error_before,
            standard_error_after=error_after,
            accepted=after < before,
            units=tuple(self._done),
        )

    def _streams(self, batch: Batch) -> tuple[str, ...]:
        return ("source", "prefix", "before", "after") if batch.part else ("source", "prefix")

    def _choose(self, layer: int) -> dict[str, _Choice]:
        """By unit of ``layer``, the weights that are not the source's."""
        chosen: dict[str, _Choice] = {}
        for unit in self._model.units:
            if unit.layer == layer:
                choice = self._polish_unit(unit, chosen)
                if choice is not None:
                    chosen[unit.name] = choice
                    self._exact = False
                number = self._model.units.index(unit) + 1
                self._progress(Event("polish", number, len(self._model.units), unit.name))
        return chosen

    def _polish_unit(self, unit: Unit, chosen: dict[str, _Choice]) -> _Choice | None:
        scheme = self._schemes[unit.name]
        if scheme == BF16 and all(linear.weight.dtype == "BF16" for linear in unit.linears):
            return None
        old = self._old(unit)
        before = decoded(old, self._skeleton.device, self._threads)
        if scheme == BF16:
            return _Choice(before, before)
        if unit.experts:  # written as it was priced: see `_solvable`
            if not self._polished.path(unit.name, old.format).exists():
                self._polished.put(old)
            return _Choice(before, before)
        kept, entry = self._found(unit)
        if kept is None or entry is None:
            kept, entry = self._solve(unit, old, before, _after(chosen))
            self._polished.put(kept)
            record.write(self._entry(unit), entry, _UNIT_SCHEMA)
        self._done.append(entry)
        return _Choice(before, decoded(kept, self._skeleton.device, self._threads))

    def _old(self, unit: Unit) -> Rendering:
        format = get_scheme(self._schemes[unit.name]).weight_format
        return render_cached(
            self._model, unit, format, preset=self._plan.preset, cache=self._priced, threads=self._threads
        )

    def _found(self, unit: Unit) -> tuple[Rendering | None, PolishedUnit | None]:
        """What an earlier run has kept of ``unit``."""
        try:
            entry = record.read(self._entry(unit), PolishedUnit, _UNIT_SCHEMA)
        except StageFileError:
            return None, None
        return self._polished.get(unit, get_scheme(self._schemes[unit.name]).weight_format), entry

    def _entry(self, unit: Unit) -> Path:
        return self._polished.folder / f"{unit.name}.json"

    def _solve(self, unit: Unit, old: Rendering, before: Weights, earlier: Weights) -> tuple[Rendering, PolishedUnit]:
        """The better of the old rendering and a new one, behind ``earlier`` weights of the layer."""
        output_grams = self._grams.get(unit)
        if output_grams is None:
            raise RefusedError(
                "the Grams of its output gradients were not kept",
                where=unit.name,
                hint="use the work folder in which this model was probed (--work-dir), or probe again (--restart)",
            )
        new = old
        if not self._exact:  # else it gets what it was solved for
            grams = mismatch_grams(self._inputs(unit, self._fit, earlier), output_grams)
            new = render(self._model, unit, old.format, preset=self._plan.preset, grams=grams, threads=self._threads)
        after = before if new is old else decoded(new, self._skeleton.device, self._threads)
        candidates = [before] if new is old else [before, after]
        linears = self._linears[unit.layer]
        errors = mean_error(self._inputs(unit, self._held_out, earlier), linears, candidates, output_grams)
        better = errors[-1] < errors[0]
        entry = PolishedUnit(unit.name, self._schemes[unit.name], better, errors[0], errors[-1])
        return new if better else old, entry

    def _inputs(self, unit: Unit, batches: list[Batch], earlier: Weights) -> Iterator[Inputs]:
        linears = self._linears[unit.layer]
        first = linears[unit.linears[0].name]
        for batch in batches:
            source = self._spool.get(_input(unit, batch)).to(self._skeleton.device)
            with with_weights(self._skeleton.causal, self._units(unit.layer), earlier):
                yield source, input_of(first, self._run("prefix", unit.layer, batch))

    def _run(self, stream: str, layer: int, batch: Batch) -> Callable[[], torch.Tensor]:
        hidden = self._spool.get(_state(stream, batch)).to(self._skeleton.device)
        return lambda: self._forward.layer(layer, hidden, batch)

    def _advance_source(self, layer: int) -> None:
        """Move the source behind ``layer``, and keep the inputs of its units on the way."""
        units = self._solvable(layer)
        firsts = {unit.name: self._linears[layer][unit.linears[0].name] for unit in units}
        for batch in (*self._fit, *self._held_out):
            output, inputs = inputs_of(firsts, self._run("source", layer, batch))
            self._spool.put(_state("source", batch), output)
            for unit in units:
                self._spool.put(_input(unit, batch), inputs[unit.name])

    def _advance(self, layer: int, chosen: dict[str, _Choice]) -> None:
        """Move the other streams behind ``layer``."""
        linears: dict[str, nn.Linear] = self._linears[layer]
        before = {name: weight for choice in chosen.values() for name, weight in choice.before.items()}
        weights = {"prefix": _after(chosen), "before": before, "after": _after(chosen)}
        served = self._served(layer)
        for batch in (*self._fit, *self._held_out):
            for stream in self._streams(batch)[1:]:
                inputs = {} if stream == "prefix" else served
                with (
                    with_weights(self._skeleton.causal, self._units(layer), weights[stream]),
                    served_inputs(linears, self._banks[layer], inputs, self._threads),
                ):
                    self._spool.put(_state(stream, batch), self._run(stream, layer, batch)())
            for unit in self._solvable(layer):
                self._spool.take(_input(unit, batch))

    def _units(self, layer: int) -> list[Unit]:
        return [unit for unit in self._model.units if unit.layer == layer]

    def _solvable(self, layer: int) -> list[Unit]:
        """Units that are solved again. Banks are not: behind the quantized layers other tokens may choose an expert."""
        return [unit for unit in self._units(layer) if self._schemes[unit.name] != BF16 and not unit.experts]

    def _served(self, layer: int) -> dict[str, ServedInput]:
        found = {}
        for unit in self._model.units:
            activations = get_scheme(self._schemes[unit.name]).activations
            if unit.layer == layer and activations is not None:
                how = ServedInput(activations, self._input_scales.get(unit.name))
                found.update({linear.name: how for linear in unit.linears})
        return found

    def _measure(self) -> np.ndarray:
        """Divergences of both builds, summed over each held-out window: float64 ``[windows, 2]``."""
        rows = []
        for batch in self._held_out:
            source, before, after = (
                self._spool.get(_state(stream, batch)).to(self._skeleton.device)
                for stream in ("source", "before", "after")
            )
            for window in range(len(source)):
                rows.append(divergences(self._skeleton, source[window], [before[window], after[window]]))
        return np.array(rows)


def _after(chosen: dict[str, _Choice]) -> Weights:
    return {name: weight for choice in chosen.values() for name, weight in choice.after.items()}


def _state(stream: str, batch: Batch) -> str:
    return f"{stream}-{batch.name}"


def _input(unit: Unit, batch: Batch) -> str:
    return f"input-{unit.name}-{batch.name}"
