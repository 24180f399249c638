"""`Settings`: what a probe measures, and what it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prismaquant import formats
from prismaquant.calibration.prices import PRICES
from prismaquant.errors import ArgumentError
from prismaquant.solver import preset_needs_gram

if TYPE_CHECKING:
    from prismaquant.formats import Scheme
    from prismaquant.model import Unit
    from prismaquant.rendering.cache import RenderCache
    from prismaquant.rendering.grams import GramStore

__all__ = ["Settings", "fitting", "lacks", "settings_of"]


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


def settings_of(
    schemes: Sequence[str],
    preset: str,
    prices: Sequence[str],
    cache: RenderCache | None,
    threads: int | None,
    store: GramStore | None,
    keep_grams: bool,
) -> Settings:
    """The settings of a probe with these arguments.

    Raises
    ------
    ArgumentError
        There is no scheme or no price.
    FormatError
        A name is unknown.
    """
    menu = tuple(formats.get_scheme(name) for name in dict.fromkeys(schemes))
    if not menu:
        raise ArgumentError("schemes is empty", hint=f"known: {', '.join(formats.list_schemes())}")
    wanted = tuple(dict.fromkeys(prices))
    if not wanted:
        raise ArgumentError("prices is empty", hint=f"known: {', '.join(PRICES)}")
    for name in wanted:
        if name not in PRICES:
            raise formats.unknown_name("price", name, PRICES)
    grams = preset_needs_gram(preset) or "kfac" in wanted
    return Settings(menu, preset, wanted, grams, cache, threads, store, keep_grams)


def fitting(unit: Unit, menu: Sequence[Scheme]) -> list[Scheme]:
    """The schemes that the shapes of all Linears of ``unit`` allow."""
    return [x for x in menu if not any(formats.why_not(x, y.rows, y.columns) for y in unit.linears)]


def lacks(unit: Unit, settings: Settings) -> bool:
    """Whether renderings or Grams of ``unit`` that are to be kept are not there."""
    if settings.store is not None and settings.grams and not settings.store.has(unit, inputs=settings.keep_grams):
        return True
    wanted = {scheme.weight_format for scheme in fitting(unit, settings.menu)}
    return settings.cache is not None and any(settings.cache.lacks(unit, format) for format in wanted)
