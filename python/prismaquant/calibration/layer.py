"""`probe_layer`: the sensitivity of the units of one layer, from its visits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from prismaquant.calibration.collect import LinearStatistics, collect
from prismaquant.calibration.experts import coverage, pool
from prismaquant.calibration.inputs import choose_input_global_scales
from prismaquant.calibration.settings import Settings, fitting
from prismaquant.calibration.unit import UnitPrices
from prismaquant.files.sensitivity import CacheRange, LinearSensitivity, Sensitivity, UnitSensitivity, price_sums_name
from prismaquant.rendering.cache import render_cached

if TYPE_CHECKING:
    from prismaquant.model import Model, Unit
    from prismaquant.streaming import Visit

__all__ = ["probe_layer"]


def probe_layer(
    model: Model,
    outline: Sensitivity,
    units: Sequence[Unit],
    visits: Iterable[Visit],
    kinds: Sequence[str],
    settings: Settings,
) -> Sensitivity:
    """Gather statistics, choose the ranges of inputs, render every candidate, and price it.

    Parameters
    ----------
    outline
        The result without its units.
    units
        Those of the layer.
    visits
        The visits of the layer.
    kinds
        What the windows of each part are for: ``"statistics"``, ``"ranges"`` or ``"prices"``, in this order; or
        ``"preview"``, for statistics and prices at once.

    Returns
    -------
    Sensitivity
        Of the units that the windows reach: all but some of towers.
    """
    statistics: dict[str, LinearStatistics] = {}
    scales: dict[str, float] = {}
    prices: dict[str, UnitPrices] = {}
    ranges: dict[str, CacheRange] = {}
    visits = _ranged(visits, ranges)
    for part, of_part in groupby(visits, key=lambda visit: visit.part):
        if kinds[part] == "statistics":
            statistics = collect(of_part, grams=settings.grams)
            units = _reached(units, statistics)
        elif kinds[part] == "preview":
            prices = {unit.name: _render(model, unit, {}, None, settings) for unit in units}
            statistics = collect(_priced(of_part, prices.values()), grams=False)
            units = _reached(units, statistics)
            scales = choose_input_global_scales(_static(units, settings), (), statistics)
        elif kinds[part] == "ranges":
            scales = choose_input_global_scales(_static(units, settings), of_part, statistics, settings.threads)
        else:
            scales = scales or choose_input_global_scales(_static(units, settings), (), statistics)
            for unit in units:
                prices[unit.name] = _render(model, unit, statistics, scales.get(unit.name), settings)
            for visit in of_part:
                for of_unit in prices.values():
                    of_unit.add(visit)
    measured, sums = [], {}
    for unit in units:
        candidates, of_prices = prices[unit.name].finish()
        linears = tuple(
            LinearSensitivity(
                linear.name,
                linear.rows,
                linear.columns,
                statistics[linear.name].fisher_trace,
                statistics[linear.name].input_amax,
            )
            for linear in unit.linears
        )
        seen = coverage(unit, statistics)
        measured.append(UnitSensitivity(unit.name, linears, candidates, scales.get(unit.name), seen))
        sums.update({price_sums_name(unit.name, price): values for price, values in of_prices.items()})
    rows = {name: of_linear.fisher_rows.float().numpy() for name, of_linear in statistics.items()}
    return replace(outline, units=tuple(measured), caches=tuple(ranges.values()), fisher_rows=rows, price_sums=sums)


def _reached(units: Iterable[Unit], statistics: Mapping[str, LinearStatistics]) -> list[Unit]:
    return [unit for unit in units if all(linear.name in statistics for linear in unit.linears)]


def _static(units: Iterable[Unit], settings: Settings) -> list[Unit]:
    """The units whose inputs may get a range that is stored."""
    return [unit for unit in units if any(x.activations == "nvfp4" for x in fitting(unit, settings.menu))]


def _ranged(visits: Iterable[Visit], ranges: dict[str, CacheRange]) -> Iterator[Visit]:
    """``visits``, whose ``ranges`` of keys and values are widened on the way."""
    for visit in visits:
        for cache in visit.caches:
            known = ranges.get(cache.name, cache)
            key_amax, value_amax = max(cache.key_amax, known.key_amax), max(cache.value_amax, known.value_amax)
            ranges[cache.name] = replace(cache, key_amax=key_amax, value_amax=value_amax)
        yield visit


def _priced(visits: Iterable[Visit], prices: Iterable[UnitPrices]) -> Iterator[Visit]:
    """``visits``, which are added to ``prices`` on the way."""
    for visit in visits:
        for of_unit in prices:
            of_unit.add(visit)
        yield visit


def _render(
    model: Model, unit: Unit, statistics: Mapping[str, LinearStatistics], scale: float | None, settings: Settings
) -> UnitPrices:
    """Candidates of ``unit``; schemes with one weight format share its rendering."""
    menu = fitting(unit, settings.menu)
    kept = {name: each.grams for name, each in statistics.items() if each.grams is not None}
    grams = pool(unit, kept)
    if settings.store is not None and grams:
        settings.store.put(unit, grams, inputs=settings.keep_grams)
    renderings = {
        format: render_cached(
            model,
            unit,
            format,
            preset=settings.preset,
            cache=settings.cache,
            grams=grams or None,
            threads=settings.threads,
        )
        for format in dict.fromkeys(scheme.weight_format for scheme in menu)
    }
    return UnitPrices(
        unit,
        menu,
        renderings,
        statistics,
        input_global_scale=scale,
        prices=settings.prices,
        threads=settings.threads,
    )
