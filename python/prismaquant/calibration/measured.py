"""`measure`: the price `measured`, which is no estimate: the model is run with one unit replaced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from prismaquant.calibration.journal import Journal
from prismaquant.calibration.polish.head import divergences
from prismaquant.calibration.polish.layer import ServedInput, served_inputs, with_weights
from prismaquant.calibration.polish.unit import decoded
from prismaquant.calibration.prices import MEASURED
from prismaquant.calibration.threads import torch_threads
from prismaquant.errors import RefusedError
from prismaquant.files.sensitivity import Sensitivity, UnitSensitivity, price_sums_name
from prismaquant.formats import get_scheme
from prismaquant.progress import Event, Progress, silent
from prismaquant.rendering.cache import render_cached
from prismaquant.rendering.input_scale import static_scale
from prismaquant.streaming import Batch, Spool, Windows
from prismaquant.streaming.forward import Forward
from prismaquant.streaming.linears import find_banks, find_linears
from prismaquant.streaming.skeleton import Skeleton

if TYPE_CHECKING:
    from prismaquant.calibration.draw import Draw
    from prismaquant.model import Model, Unit
    from prismaquant.rendering.cache import RenderCache
    from prismaquant.rendering.render import Rendering
    from prismaquant.types import Array

__all__ = ["measure"]

_BATCH_WINDOWS = 8


def measure(
    model: Model,
    draw: Draw,
    sensitivity: Sensitivity,
    cache: RenderCache,
    *,
    journal: Path | None = None,
    spool: Spool | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = silent,
) -> Sensitivity:
    """``sensitivity`` with the price `MEASURED`: the KL divergence of the model with one unit in one scheme.

    On the windows for prices, in nats per token, inputs quantized as the scheme says.

    Parameters
    ----------
    cache
        The renderings that were priced.
    journal, spool, device, threads
        As in `probe`.

    Raises
    ------
    RefusedError
        A rendering is missing.

    Notes
    -----
    Every candidate of a layer runs through all layers behind it: with ``n`` layers, about ``n^2 / 2`` times the
    candidates of one layer runs of a layer, where the other prices take ``3 n``.
    """
    menu = tuple(dict.fromkeys(each.scheme for unit in sensitivity.units for each in unit.candidates))
    outline = replace(sensitivity.outline, prices=(MEASURED,))
    entries = None if journal is None else Journal(journal, outline, menu)
    parts = {} if entries is None else _finished(model, sensitivity, entries)
    if len(parts) < model.num_layers:
        run = _Run(model, draw, sensitivity, cache, spool or Spool(), device, threads)
        with torch.no_grad(), torch_threads(threads):
            for layer, sums in run.layers(set(range(model.num_layers)) - parts.keys()):
                part = _part(outline, sensitivity, [unit for unit in model.units if unit.layer == layer], sums)
                if entries is not None:
                    entries.put(layer, part)
                parts[layer] = part
                progress(Event("measure", len(parts), model.num_layers, f"layer {layer}"))
    found = {unit.name: unit for part in parts.values() for unit in part.units}
    return replace(
        sensitivity,
        prices=tuple(dict.fromkeys((*sensitivity.prices, MEASURED))),
        units=tuple(_joined(unit, found[unit.name]) for unit in sensitivity.units),
        price_sums=sensitivity.price_sums | {name: x for part in parts.values() for name, x in part.price_sums.items()},
    )


def _finished(model: Model, sensitivity: Sensitivity, entries: Journal) -> dict[int, Sensitivity]:
    """Layers whose candidates were all measured before."""
    known = {unit.name: [each.scheme for each in unit.candidates] for unit in sensitivity.units}
    found = {}
    for layer in range(model.num_layers):
        part = entries.get(layer)
        names = [unit.name for unit in model.units if unit.layer == layer]
        if part is None or [x.name for x in part.units] != names:
            continue
        if all([each.scheme for each in x.candidates] == known[x.name] for x in part.units):
            found[layer] = part
    return found


def _part(
    outline: Sensitivity, sensitivity: Sensitivity, of_layer: Sequence[Unit], sums: dict[str, Array]
) -> Sensitivity:
    """The units of one layer with this price alone. ``sums [candidates, windows]``, nats, by unit."""
    names = {unit.name for unit in of_layer}
    units = []
    for unit in sensitivity.units:
        if unit.name in names:
            per_token = sums[unit.name].sum(axis=1) / sensitivity.price_tokens
            candidates = [
                replace(each, prices={MEASURED: float(value)})
                for each, value in zip(unit.candidates, per_token, strict=True)
            ]
            units.append(replace(unit, candidates=tuple(candidates)))
    rows = {linear.name: sensitivity.fisher_rows[linear.name] for unit in units for linear in unit.linears}
    of_price: dict[str, Array] = {
        price_sums_name(name, MEASURED): values.astype(np.float32) for name, values in sums.items()
    }
    return replace(outline, units=tuple(units), fisher_rows=rows, price_sums=of_price)


def _joined(unit: UnitSensitivity, measured: UnitSensitivity) -> UnitSensitivity:
    pairs = zip(unit.candidates, measured.candidates, strict=True)
    return replace(unit, candidates=tuple(replace(old, prices=old.prices | new.prices) for old, new in pairs))


@dataclass(frozen=True, slots=True)
class _Change:
    """One candidate that changes the outputs of its unit."""

    unit: Unit
    index: int
    scheme: str

    def state(self, batch: Batch) -> str:
        return f"{self.unit.name}-{self.index}-{batch.name}"


class _Run:
    def __init__(
        self,
        model: Model,
        draw: Draw,
        sensitivity: Sensitivity,
        cache: RenderCache,
        spool: Spool,
        device: str,
        threads: int | None,
    ) -> None:
        self._model, self._cache, self._spool, self._threads = model, cache, spool, threads
        self._batches = Windows(draw.prices).batches(0, 0, _BATCH_WINDOWS)
        self._windows = len(draw.prices)
        self._skeleton = Skeleton(model, device)
        self._forward = Forward(self._skeleton)
        self._linears, self._banks = find_linears(model, self._skeleton), find_banks(model, self._skeleton)
        self._known = {unit.name: unit for unit in sensitivity.units}

    def layers(self, wanted: set[int]) -> Iterator[tuple[int, dict[str, Array]]]:
        """Of each layer that is wanted: unit name -> sums of its candidates, float64 ``[candidates, windows]``."""
        skeleton = self._skeleton
        try:
            with skeleton.filled(skeleton.rest):
                with skeleton.filled(skeleton.embedding):
                    for batch in self._batches:
                        self._spool.put(_input(0, batch), self._forward.embed(batch))
                for layer in range(len(skeleton.layers)):
                    with skeleton.filled(skeleton.layer_tensors[layer]):
                        self._advance(layer, [(_input(layer, x), _input(layer + 1, x), x) for x in self._batches])
                for layer in sorted(wanted):
                    yield layer, self._measured(layer)
        finally:
            self._spool.clear()

    def _measured(self, layer: int) -> dict[str, Array]:
        units = [unit for unit in self._model.units if unit.layer == layer]
        sums: dict[str, Array] = {
            unit.name: np.zeros((len(self._known[unit.name].candidates), self._windows)) for unit in units
        }
        with self._skeleton.filled(self._skeleton.layer_tensors[layer]):
            changes = list(self._replaced(layer, units))
        for behind in range(layer + 1, len(self._skeleton.layers)):
            with self._skeleton.filled(self._skeleton.layer_tensors[behind]):
                self._advance(behind, [(x.state(b), x.state(b), b) for x in changes for b in self._batches])
        with self._skeleton.filled(self._skeleton.head):
            for batch in self._batches:
                source = self._state(_input(len(self._skeleton.layers), batch))
                builds = [self._state(change.state(batch)) for change in changes]
                for number in range(len(source)):
                    found = divergences(self._skeleton, source[number], [build[number] for build in builds])
                    for change, value in zip(changes, found, strict=True):
                        sums[change.unit.name][change.index, batch.window + number] = value
        return sums

    def _replaced(self, layer: int, units: Iterable[Unit]) -> Iterator[_Change]:
        """Put the output of ``layer``, which is filled, for each candidate of ``units``."""
        for unit in units:
            known = self._known[unit.name]
            for index, candidate in enumerate(known.candidates):
                scheme = get_scheme(candidate.scheme)
                if not scheme.activations and not candidate.squared_error:
                    continue  # nothing changes
                change = _Change(unit, index, scheme.name)
                rendering = self._rendering(unit, scheme.weight_format)
                weights = decoded(unit, rendering, self._skeleton.device, self._threads)
                served = {}
                if scheme.activations is not None:
                    scale = static_scale(scheme.activations, known.input_amax, known.input_global_scale)
                    how = ServedInput(scheme.activations, scale)
                    served = dict.fromkeys((linear.name for linear in unit.linears), how)
                with (
                    with_weights(self._skeleton, weights),
                    served_inputs(self._linears[layer], self._banks[layer], served, self._threads),
                ):
                    self._advance(layer, [(_input(layer, x), change.state(x), x) for x in self._batches])
                yield change

    def _rendering(self, unit: Unit, format: str) -> Rendering:
        if self._cache.lacks(unit, format):
            raise RefusedError(
                f"its rendering in {format} is not in {self._cache.folder}",
                where=unit.name,
                hint="probe again (--restart)",
            )
        preset = self._cache.preset
        return render_cached(self._model, unit, format, preset=preset, cache=self._cache, threads=self._threads)

    def _advance(self, layer: int, moves: Iterable[tuple[str, str, Batch]]) -> None:
        """For each of ``moves`` (from, to, batch) put what ``layer``, which is filled, makes of a state."""
        for start, end, batch in moves:
            self._spool.put(end, self._forward.layer(layer, self._state(start), batch))

    def _state(self, name: str) -> torch.Tensor:
        return self._spool.get(name).to(self._skeleton.device)


def _input(layer: int, batch: Batch) -> str:
    return f"input-{layer}-{batch.name}"
