"""`probe_layer`: the sensitivity of the units of one layer, from its visits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from prismaquant import formats
from prismaquant.calibration.collect import LinearStatistics, collect
from prismaquant.calibration.experts import coverage, pool
from prismaquant.calibration.inputs import choose_input_global_scales
from prismaquant.calibration.unit import UnitPrices
from prismaquant.files.sensitivity import CacheRange, LinearSensitivity, Sensitivity, UnitSensitivity, price_sums_name
from prismaquant.rendering.cache import RenderCache, render_cached

if TYPE_CHECKING:
    from prismaquant.formats import Scheme
    from prismaquant.model import Model, Unit
    from prismaquant.rendering.grams import GramStore
    from prismaquant.streaming import Visit

__all__ = ["Settings", "fitting", "probe_layer"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured, and how.

    Attributes
    ----------
    menu
        The schemes to price.
    preset
        Solver preset that renders them.
    prices
        Names of the prices.
    grams
        Whether Grams are needed.
    cache, threads
        As in `render_cached`.
    store
        Where Grams are kept; ``None``: they are dropped.
    keep_grams
        Whether those of the inputs are kept there, too.
    """

    menu: tuple[Scheme, ...]
    preset: str
    prices: tuple[str, ...]
    grams: bool
    cache: RenderCache | None
    threads: int | None
    store: GramStore | None = None
    keep_grams: bool = False


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
    """
    statistics: dict[str, LinearStatistics] = {}
    scales: dict[str, float] = {}
    prices: dict[str, UnitPrices] = {}
    ranges: dict[str, CacheRange] = {}
    visits = _ranged(visits, ranges)
    static = [unit for unit in units if any(x.activations == "nvfp4" for x in fitting(unit, settings.menu))]
    for part, of_part in groupby(visits, key=lambda visit: visit.part):
        if kinds[part] == "statistics":
            statistics = collect(of_part, grams=settings.grams)
        elif kinds[part] == "preview":
            prices = {unit.name: _render(model, unit, {}, None, settings) for unit in units}
            statistics = collect(_priced(of_part, prices.values()), grams=False)
            scales = choose_input_global_scales(static, (), statistics)
        elif kinds[part] == "ranges":
            scales = choose_input_global_scales(static, of_part, statistics, settings.threads)
        else:
            scales = scales or choose_input_global_scales(static, (), statistics)
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


def fitting(unit: Unit, menu: Sequence[Scheme]) -> list[Scheme]:
    """The schemes that the shapes of all Linears of ``unit`` allow."""
    return [x for x in menu if not any(formats.why_not(x, y.rows, y.columns) for y in unit.linears)]
