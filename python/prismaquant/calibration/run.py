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
from prismaquant.solver import preset_needs_gram
from prismaquant.streaming import Tokens, walk

if TYPE_CHECKING:
    from prismaquant.formats import Scheme
    from prismaquant.model import Model, Unit
    from prismaquant.rendering.cache import RenderCache
    from prismaquant.rendering.render import Grams

__all__ = ["probe"]

_BATCH_WINDOWS = 8


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
        Solver preset that renders the candidates. One that needs a Gram solves for three quarters of the windows, and
        the others set the prices.
    probes
        Sampled residuals per window: more make the Fisher statistics less noisy, at one backward pass each.
    seed
        Fixes the residuals.
    cache
        Where renderings are kept for the export; ``None``: they are made and dropped. Its ``calibration`` is that of
        the result.
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
    solves = preset_needs_gram(preset)
    batch_windows, first_priced = _batches(len(tokens.ids), held_out=solves)
    measured: dict[str, UnitSensitivity] = {}
    fisher_rows: dict[str, np.ndarray] = {}
    visits = walk(model, tokens.ids, probes, seed=seed, batch_windows=batch_windows, progress=progress)
    with _torch_threads(threads), closing(visits):
        for layer, of_layer in groupby(visits, key=lambda visit: visit.layer):
            parts = [
                collect(part, output_grams=solves and not is_priced)
                for is_priced, part in groupby(of_layer, key=lambda visit: visit.batch >= first_priced)
            ]
            for unit in (unit for unit in model.units if unit.layer == layer):
                grams = {name: known for name, sums in parts[0].items() if (known := sums.grams) is not None}
                candidates = _price(model, unit, grams or None, parts[-1], menu, preset, cache, threads)
                measured[unit.name] = UnitSensitivity(unit.name, _summarize(unit, parts), candidates)
                progress(Event("price", len(measured), len(model.units), unit.name))
            for name in parts[0]:
                rows = torch.stack([part[name].fisher_rows for part in parts]).sum(dim=0)
                fisher_rows[name] = rows.float().numpy()
            del parts, grams  # the Grams die with their layer
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


def _batches(windows: int, *, held_out: bool) -> tuple[int, int]:
    """Windows per batch, and the first batch whose windows price what was solved for the others.

    A solver fits the inputs that it is shown, and on these its errors look smaller than they are: a quarter of the
    windows is held out for the prices. One window alone serves for both.
    """
    if not held_out:
        return _BATCH_WINDOWS, windows
    size = min(_BATCH_WINDOWS, max(1, windows // 4))
    count = -(-windows // size)
    return size, count - max(1, count // 4) if count > 1 else count


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
    grams: dict[str, Grams] | None,
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
            rendering = render_cached(model, unit, format, preset=preset, cache=cache, grams=grams, threads=threads)
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


def _summarize(unit: Unit, parts: Sequence[dict[str, LinearStatistics]]) -> tuple[LinearSensitivity, ...]:
    return tuple(
        LinearSensitivity(
            linear.name,
            linear.rows,
            linear.columns,
            sum(part[linear.name].fisher_trace for part in parts),
            max(part[linear.name].input_amax for part in parts),
        )
        for linear in unit.linears
    )
