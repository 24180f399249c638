"""`polish`: one forward walk behind the quantized layers, each unit of the plan solved again for what reaches it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from prismaquant.calibration.polish.head import mean_and_error
from prismaquant.calibration.polish.layer import ServedInput
from prismaquant.calibration.polish.streams import Streams
from prismaquant.calibration.polish.unit import Weights, decoded, mean_error, mismatch_grams
from prismaquant.calibration.threads import torch_threads
from prismaquant.errors import RefusedError, StageFileError
from prismaquant.files import record
from prismaquant.files.polish import Polish, PolishedUnit
from prismaquant.formats import BF16, get_scheme
from prismaquant.model.kept import NO_LAYER
from prismaquant.progress import Event, Progress, silent
from prismaquant.rendering.cache import render_cached
from prismaquant.rendering.input_scale import static_scale
from prismaquant.rendering.render import render
from prismaquant.streaming import Spool

if TYPE_CHECKING:
    from prismaquant.calibration.draw import Draw
    from prismaquant.files.plan import Plan
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model, Unit
    from prismaquant.rendering.cache import RenderCache
    from prismaquant.rendering.grams import GramStore
    from prismaquant.rendering.render import Rendering

__all__ = ["Stores", "polish"]

_UNIT_SCHEMA = "prismaquant.polished-unit/1"


@dataclass(frozen=True, slots=True)
class Stores:
    """Files on disk.

    Attributes
    ----------
    priced
        The renderings of the probe.
    polished
        Where the kept ones go (`polished_cache`).
    grams
        The Grams of the output gradients that the probe has kept.
    """

    priced: RenderCache
    polished: RenderCache
    grams: GramStore


def polish(
    model: Model,
    plan: Plan,
    sensitivity: Sensitivity,
    draw: Draw,
    stores: Stores,
    *,
    spool: Spool | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = silent,
) -> Polish:
    """Solve every quantized unit of ``plan`` again, with the shift for what the layers before it have lost.

    Of a unit the new rendering is kept if it lowers the error of the outputs, weighted by the Gram of their gradients,
    on the windows for prices. A unit that was kept by an earlier run is not solved again.

    Parameters
    ----------
    draw
        The windows of the probe.
    spool, device, threads
        As in `probe`.

    Raises
    ------
    RefusedError
        A rendering or a Gram of the probe is missing.
    ModelError, DataError, NumericError
        As `prismaquant.streaming.walk`.
    """
    priced = {unit.name for unit in plan.units if unit.price is not None}
    with torch.no_grad(), torch_threads(threads):
        streams = Streams(model, draw, spool or Spool(), device, threads)
        model = model.with_units(unit for unit in model.kept_units if unit.name in priced)
        return _Run(model, plan, sensitivity, stores, streams, threads, progress).polish()


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
        stores: Stores,
        streams: Streams,
        threads: int | None,
        progress: Progress,
    ) -> None:
        self._model, self._plan = model, plan
        self._schemes = {unit.name: get_scheme(unit.scheme) for unit in plan.units}
        self._known = {unit.name: unit for unit in sensitivity.units}
        self._stores, self._streams = stores, streams
        self._threads, self._progress = threads, progress
        self._exact = True  # nothing before the unit in work is quantized
        self._done: list[PolishedUnit] = []

    def polish(self) -> Polish:
        streams, skeleton = self._streams, self._streams.skeleton
        try:
            with skeleton.filled(skeleton.rest):
                with skeleton.filled(skeleton.embedding):
                    streams.embed()
                for unit in self._model.units:
                    if unit.layer == NO_LAYER and self._schemes[unit.name].name != BF16:
                        self._keep(self._priced(unit))
                for layer in range(len(skeleton.layers)):
                    with skeleton.filled(skeleton.layer_tensors[layer]):
                        self._polish_layer(layer)
                with skeleton.filled(skeleton.head):
                    per_window = streams.divergences()
        finally:
            streams.clear()
        seq_len = streams.held_out[0].ids.shape[1]
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

    def _polish_layer(self, layer: int) -> None:
        units = [(number, unit) for number, unit in enumerate(self._model.units, start=1) if unit.layer == layer]
        # Banks are not solved again: behind the quantized layers other tokens may choose an expert.
        solvable = [unit for _, unit in units if self._schemes[unit.name].name != BF16 and not unit.experts]
        self._streams.advance_source(layer, solvable)
        before: Weights = {}
        after: Weights = {}
        for number, unit in units:
            choice = self._polish_unit(unit, after)
            if choice is not None:
                before.update(choice.before)
                after.update(choice.after)
                self._exact = False
            self._progress(Event("polish", number, len(self._model.units), unit.name))
        served = {
            linear.name: ServedInput(activations, static_scale(activations, known.input_amax, known.input_global_scale))
            for _, unit in units
            if (activations := self._schemes[unit.name].activations) is not None
            for known in (self._known[unit.name],)
            for linear in unit.linears
        }
        self._streams.advance(layer, solvable, before=before, after=after, served=served)

    def _polish_unit(self, unit: Unit, earlier: Weights) -> _Choice | None:
        """Its weights, behind ``earlier`` ones of the layer; ``None``: those of the source."""
        scheme = self._schemes[unit.name]
        if scheme.name == BF16 and all(linear.weight.dtype == "BF16" for linear in unit.linears):
            return None
        old = self._priced(unit)
        before = self._decoded(unit, old)
        if scheme.name == BF16:
            return _Choice(before, before)
        if unit.experts:
            self._keep(old)
            return _Choice(before, before)
        kept, entry = self._found(unit)
        if kept is None or entry is None:
            kept, entry = self._solve(unit, old, before, earlier)
            self._stores.polished.put(kept)
            record.write(self._entry(unit), entry, _UNIT_SCHEMA)
        self._done.append(entry)
        return _Choice(before, self._decoded(unit, kept) if entry.polished else before)

    def _priced(self, unit: Unit) -> Rendering:
        return render_cached(
            self._model,
            unit,
            self._schemes[unit.name].weight_format,
            preset=self._plan.preset,
            cache=self._stores.priced,
            threads=self._threads,
        )

    def _keep(self, priced: Rendering) -> None:
        """It is written as it was priced."""
        if not self._stores.polished.path(priced.unit, priced.format).exists():
            self._stores.polished.put(priced)

    def _found(self, unit: Unit) -> tuple[Rendering | None, PolishedUnit | None]:
        """What an earlier run has kept of ``unit``."""
        try:
            entry = record.read(self._entry(unit), PolishedUnit, _UNIT_SCHEMA)
        except StageFileError:
            return None, None
        return self._stores.polished.get(unit, self._schemes[unit.name].weight_format), entry

    def _entry(self, unit: Unit) -> Path:
        return self._stores.polished.folder / f"{unit.name}.json"

    def _solve(self, unit: Unit, old: Rendering, before: Weights, earlier: Weights) -> tuple[Rendering, PolishedUnit]:
        """The better of the old rendering and a new one."""
        output_grams = self._stores.grams.get(unit)
        if output_grams is None:
            raise RefusedError(
                "the Grams of its output gradients were not kept",
                where=unit.name,
                hint="use the work folder in which this model was probed (--work-dir), or probe again (--restart)",
            )
        streams, new, candidates = self._streams, old, [before]
        if not self._exact:  # else it gets what it was solved for
            grams = mismatch_grams(streams.inputs(unit, streams.fit, earlier), output_grams)
            new = render(self._model, unit, old.format, preset=self._plan.preset, grams=grams, threads=self._threads)
            candidates.append(self._decoded(unit, new))
        inputs = streams.inputs(unit, streams.held_out, earlier)
        errors = mean_error(inputs, streams.linears[unit.layer], candidates, output_grams)
        better = errors[-1] < errors[0]
        entry = PolishedUnit(unit.name, self._schemes[unit.name].name, better, errors[0], errors[-1])
        return new if better else old, entry

    def _decoded(self, unit: Unit, rendering: Rendering) -> Weights:
        return decoded(unit, rendering, self._streams.skeleton.device, self._threads)
