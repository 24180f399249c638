"""`probe`: walk the model once, and price every scheme of the menu on the very bytes that would be written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch

from prismaquant import formats
from prismaquant.calibration.collect import LinearStatistics, collect
from prismaquant.calibration.price import PRICES
from prismaquant.codec import get_codec
from prismaquant.errors import ArgumentError
from prismaquant.files.sensitivity import Candidate, LinearSensitivity, Sensitivity, UnitSensitivity
from prismaquant.progress import Event, Progress, silent
from prismaquant.rendering.cache import render_cached
from prismaquant.solver import require_data_free_preset
from prismaquant.streaming import Tokens, walk

if TYPE_CHECKING:
    from prismaquant.formats import Scheme
    from prismaquant.model import Model, Unit
    from prismaquant.rendering.cache import RenderCache

__all__ = ["probe"]


def probe(
    model: Model,
    tokens: Tokens,
    *,
    schemes: Sequence[str],
    preset: str,
    probes: int = 1,
    seed: int = 0,
    cache: RenderCache | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> Sensitivity:
    """Measure how much each unit of ``model`` matters and what each scheme would cost it.

    Parameters
    ----------
    tokens
        Calibration windows, see `read_tokens`.
    schemes
        The menu. A unit has no candidate for a scheme that the shape of one of its Linears does not allow.
    preset
        Solver preset that renders the candidates.
    probes
        Sampled residuals per window: more make the Fisher statistics less noisy, at one backward pass each.
    seed
        Fixes the residuals.
    cache
        Where renderings are kept for the export; ``None``: they are made and dropped.
    threads
        Threads of torch and of the solver; ``None``: torch's own setting, and all.

    Raises
    ------
    FormatError
        If a scheme or the preset is unknown.
    ModelError, DataError, NumericError
        As `prismaquant.streaming.walk`.
    """
    menu = [formats.get_scheme(name) for name in dict.fromkeys(schemes)]
    if not menu:
        raise ArgumentError("schemes is empty", hint=f"known: {', '.join(formats.list_schemes())}")
    require_data_free_preset(preset)
    measured: dict[str, UnitSensitivity] = {}
    fisher_rows: dict[str, np.ndarray] = {}
    visits = walk(model, tokens.ids, probes, seed=seed, progress=progress)
    with _torch_threads(threads), closing(visits):
        for layer, of_layer in groupby(visits, key=lambda visit: visit.layer):
            statistics = collect(of_layer)
            for unit in (unit for unit in model.units if unit.layer == layer):
                candidates = _price(model, unit, statistics, menu, preset, cache, threads)
                measured[unit.name] = UnitSensitivity(unit.name, _summarize(unit, statistics), candidates)
                progress(Event("price", len(measured), len(model.units), unit.name))
            fisher_rows |= {name: sums.fisher_rows.float().numpy() for name, sums in statistics.items()}
            del statistics  # the Grams die with their layer
    return Sensitivity(
        model=model.fingerprint,
        data=tokens.fingerprint,
        tokens=tokens.ids.size,
        seq_len=tokens.ids.shape[1],
        probes=probes,
        seed=seed,
        preset=preset,
        prices=tuple(PRICES),
        units=tuple(measured[unit.name] for unit in model.units),
        fisher_rows=fisher_rows,
    )


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _price(
    model: Model,
    unit: Unit,
    statistics: dict[str, LinearStatistics],
    menu: Sequence[Scheme],
    preset: str,
    cache: RenderCache | None,
    threads: int | None,
) -> tuple[Candidate, ...]:
    """Candidates of ``unit``; schemes with one weight format share its rendering."""
    weights = {linear.name: torch.from_numpy(model.read_weight(linear)) for linear in unit.linears}
    costs: dict[str, tuple[float, dict[str, float]]] = {}
    candidates = []
    for scheme in menu:
        if any(formats.why_not(scheme, linear.rows, linear.columns) for linear in unit.linears):
            continue
        format = scheme.weight_format
        if format not in costs:
            rendering = render_cached(model, unit, format, preset=preset, cache=cache, threads=threads)
            prices = dict.fromkeys(PRICES, 0.0)
            for name, weight in weights.items():
                decoded = get_codec(format).decode(rendering.quantized[name], dtype="float32", threads=threads)
                delta = torch.from_numpy(decoded).sub_(weight)
                for price, function in PRICES.items():
                    prices[price] += function(delta, statistics[name])
            costs[format] = sum(rendering.squared_error.values()), prices
        squared_error, prices = costs[format]
        nbytes = sum(formats.stored_bytes(scheme, linear.rows, linear.columns) for linear in unit.linears)
        candidates.append(Candidate(scheme.name, nbytes, squared_error, dict(prices)))
    return tuple(candidates)


def _summarize(unit: Unit, statistics: dict[str, LinearStatistics]) -> tuple[LinearSensitivity, ...]:
    return tuple(
        LinearSensitivity(
            linear.name,
            linear.rows,
            linear.columns,
            statistics[linear.name].fisher_trace,
            statistics[linear.name].input_amax,
        )
        for linear in unit.linears
    )
