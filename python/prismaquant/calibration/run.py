"""`probe`: walk the model once, and price every scheme of the menu on the very bytes that would be written."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from prismaquant.calibration.draw import Draw
from prismaquant.calibration.journal import Journal
from prismaquant.calibration.layer import probe_layer
from prismaquant.calibration.memory import return_memory
from prismaquant.calibration.prices import DEFAULT_PRICES
from prismaquant.calibration.settings import Settings, lacks, settings_of
from prismaquant.calibration.threads import torch_threads
from prismaquant.calibration.towers import SampleDraw, probe_towers
from prismaquant.files.sensitivity import Sensitivity
from prismaquant.model.kept import NO_LAYER
from prismaquant.progress import Event, Progress, silent
from prismaquant.streaming import Spool, Windows, walk

if TYPE_CHECKING:
    from prismaquant.model import Model
    from prismaquant.rendering.cache import RenderCache
    from prismaquant.rendering.grams import GramStore

__all__ = ["probe"]


def probe(
    model: Model,
    draw: Draw,
    *,
    schemes: Sequence[str],
    preset: str,
    prices: Sequence[str] = DEFAULT_PRICES,
    preview: bool = False,
    calibrate_all_experts: bool = False,
    probes: int = 1,
    price_probes: int = 8,
    seed: int = 0,
    cache: RenderCache | None = None,
    grams: GramStore | None = None,
    keep_grams: bool = False,
    journal: Path | None = None,
    towers: SampleDraw | None = None,
    spool: Spool | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = silent,
) -> Sensitivity:
    """Measure how much each unit of ``model`` matters and what each scheme would cost it.

    Units of an MTP layer (`with_mtp`) are priced by the loss of what that layer predicts, those of towers on samples.

    Parameters
    ----------
    draw
        Calibration windows.
    schemes
        The menu. A unit has no candidate for a scheme that the shape of one of its Linears does not allow.
    preset
        Solver preset that renders the candidates.
    prices
        Names of the prices to compute.
    preview
        Price on the windows of the statistics, which are the only ones then; for presets and prices that need no
        Grams.
    calibrate_all_experts
        Whether the Gram of an expert's inputs sums all tokens of the statistics. Gradients and prices are those of the
        tokens that were routed to it in any case.
    probes, price_probes
        Sampled residuals per window, for the statistics and for the prices: more make them less noisy, at one backward
        pass each.
    seed
        Fixes the residuals.
    cache
        Where renderings are kept for the export; ``None``: they are made and dropped. Its ``calibration`` is that of
        the result.
    grams
        Where the Grams of the output gradients are kept for the polish, and with ``keep_grams`` those of the inputs;
        ``None``: they are dropped.
    journal
        Folder of finished layers (`Journal`), which are not measured again; ``None``: nothing is kept.
    towers
        Prompts with images or audio: the units of towers are measured on them, too; ``None``: they stay as they are.
    spool, device
        As in `walk`.
    threads
        Threads of torch and of the solver; ``None``: torch's own setting, and all.

    Raises
    ------
    FormatError
        If a scheme, the preset or a price is unknown.
    ModelError, DataError, NumericError
        As `prismaquant.streaming.walk`.
    """
    settings = settings_of(schemes, preset, prices, cache, threads, grams, keep_grams)
    parts = {"preview" if preview else "statistics": Windows(draw.statistics, probes)}
    if len(draw.ranges) and any(scheme.activations == "nvfp4" for scheme in settings.menu):
        parts["ranges"] = Windows(draw.ranges)
    if not preview:
        parts["prices"] = Windows(draw.prices, price_probes)
    statistics, priced = draw.fingerprints
    outline = Sensitivity(
        model=model.fingerprint,
        data=statistics,
        tokens=draw.statistics.size,
        seq_len=draw.statistics.shape[1],
        probes=probes,
        seed=seed,
        preset=preset,
        prices=settings.prices,
        units=(),
        price_data=statistics if preview else priced,
        price_tokens=draw.statistics.size if preview else draw.prices.size,
        price_probes=probes if preview else price_probes,
        calibrate_all_experts=calibrate_all_experts,
    )
    if towers is not None:
        outline = towers.describe(outline)
    entries = None if journal is None else Journal(journal, outline, tuple(scheme.name for scheme in settings.menu))
    layers = [*range(model.num_layers), *{unit.layer for unit in model.units if unit.layer == NO_LAYER}]
    measured = {} if entries is None else _finished(model, layers, entries, settings)
    if len(measured) < len(layers):
        visits = walk(
            model,
            list(parts.values()),
            seed=seed,
            skip=measured.copy(),
            show_all=(0,) if calibrate_all_experts else (),
            spool=spool,
            device=device,
            progress=progress,
        )
        with torch_threads(threads), closing(visits):
            for layer, of_layer in groupby(visits, key=lambda visit: visit.layer):
                units = [unit for unit in model.units if unit.layer == layer]
                measured[layer] = probe_layer(model, outline, units, of_layer, list(parts), settings)
                if entries is not None:
                    entries.put(layer, measured[layer])
                return_memory()
                done = sum(len(part.units) for part in measured.values())
                progress(Event("price", done, len(model.units), f"layer {layer}"))
    by_name = {unit.name: unit for part in measured.values() for unit in part.units}
    result = replace(
        outline,
        units=tuple(by_name[unit.name] for unit in model.units),
        caches=tuple(cache for layer in sorted(measured) for cache in measured[layer].caches),
        fisher_rows={name: rows for part in measured.values() for name, rows in part.fisher_rows.items()},
        price_sums={name: sums for part in measured.values() for name, sums in part.price_sums.items()},
    )
    if towers is None:
        return result
    return probe_towers(
        towers,
        result,
        settings,
        seed=seed,
        journal=journal,
        spool=spool,
        device=device,
        threads=threads,
        progress=progress,
    )


def _finished(model: Model, layers: Sequence[int], entries: Journal, settings: Settings) -> dict[int, Sensitivity]:
    """The layers of the journal whose renderings and Grams were kept, too."""
    found = {}
    for layer in layers:
        part = entries.get(layer)
        units = [unit for unit in model.units if unit.layer == layer]
        if part is not None and not any(lacks(unit, settings) for unit in units):
            found[layer] = part
    return found
