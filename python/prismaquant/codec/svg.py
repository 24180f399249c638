"""Small pictures as inline SVG: the values of a format on a number line, and bars over them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[Any]

__all__ = ["counts", "grid", "histogram"]

_WIDTH, _MARGIN, _BARS = 640, 32, 90
_COLOUR = "#4c78a8"
#: A tick or bar of its own for each value needs so many pixels.
_APART = 4.0
#: At most so many bars, each of several codes where there are more.
_MOST_BARS = 128


def grid(values: Array, label: str) -> str:
    """The ``values``, rising, on a number line; where they are dense, the positive ones on a logarithmic line below.

    Of more values than can be told apart there is only that line, with the powers of two.
    """
    few = values.size <= 4 * _MOST_BARS
    parts = _line(values, _places(values), 14) if few else []
    positive = values[values > 0]
    if few and (_nearest(values) >= _APART or np.allclose(np.diff(positive), positive[0])):
        return _svg(36, parts, label)
    y = 64 if few else 26
    logs = np.log2(positive) if few else np.unique(np.floor(np.log2(positive)))
    what = "positive values" if few else f"powers of two: each of {values.size} values lies at or between them"
    parts.append(_text(_MARGIN, y - 14, f"{what}, on a logarithmic line", "start"))
    parts += _line(np.exp2(logs), _places(logs), y)
    return _svg(y + 22, parts, label)


def counts(values: Array, codes: Array, label: str) -> str:
    """How often each code occurs: bars at the values of the codes, or in their order where they lie too close."""
    finite = np.isfinite(values)
    grid, place = np.unique(values[finite], return_inverse=True)
    number = np.bincount(place, codes[finite], grid.size)
    share = number / max(1.0, float(number.sum()))
    if (gap := _nearest(grid)) >= _APART:
        at, width, ticks = _places(grid), 0.8 * gap, grid
    else:
        step = -(-grid.size // _MOST_BARS)
        starts = np.arange(0, grid.size, step)
        share = np.add.reduceat(share, starts)
        at = _places(np.arange(starts.size))
        width, ticks = max(1.0, 0.8 * float(at[1] - at[0])), grid[np.minimum(starts + step // 2, grid.size - 1)]
        label += ", in the order of the values"
    base = 16 + _BARS
    parts = _bars(at, share, width, base, [f"{tick:g}: {part:.2%}" for tick, part in zip(ticks, share, strict=True)])
    parts += _line(ticks, at, base, all_ticks=gap >= _APART)
    return _svg(base + 22, parts, label)


def histogram(edges: Array, number: Array, label: str) -> str:
    """Bars between neighbours of ``edges``."""
    middles = (edges[1:] + edges[:-1]) / 2
    at = _places(edges)
    share = number / max(1, int(number.sum()))
    base = 16 + _BARS
    names = [f"{middle:.3g}: {part:.2%}" for middle, part in zip(middles, share, strict=True)]
    parts = _bars((at[1:] + at[:-1]) / 2, share, max(0.5, float(at[1] - at[0]) - 1), base, names)
    ends = np.linspace(edges[0], edges[-1], 5)
    parts += _line(ends, _places(ends), base)
    return _svg(base + 22, parts, label)


def _places(values: Array) -> Array:
    """Horizontal places of ``values``, which rise, over the whole width."""
    low, high = float(values[0]), float(values[-1])
    return _MARGIN + (values.astype(np.float64) - low) * ((_WIDTH - 2 * _MARGIN) / ((high - low) or 1.0))


def _nearest(values: Array) -> float:
    """Pixels between the two values that lie closest."""
    return float(np.diff(_places(values)).min()) if len(values) > 1 else float(_WIDTH)


def _line(values: Array, at: Array, y: float, *, all_ticks: bool = True) -> list[str]:
    """A line with the values below as far as there is room, ends, zero, one first; ticks at those, or at all places."""
    first = {int(np.abs(values - wanted).argmin()): rank for rank, wanted in ((2, 1.0), (1, 0.0))}
    first |= {0: 0, len(values) - 1: 0}
    order = sorted(range(len(values)), key=lambda i: (first.get(i, 3), -abs(float(values[i]))))
    taken: list[tuple[float, float]] = []
    texts = []
    for i in order:
        text = _number(float(values[i]))
        half = 3.2 * len(text) + 4
        if all(abs(at[i] - other) > half + other_half for other, other_half in taken):
            taken.append((float(at[i]), half))
            texts.append(_text(at[i], y + 17, text))
    marked = np.unique(np.round(at, 1)) if all_ticks else np.array([x for x, _ in taken])
    ticks = "".join(f"M{x:.1f} {y - 4:g}v8" for x in marked)
    path = f'<path d="M{at[0]:.1f} {y:g}H{at[-1]:.1f}{ticks}" stroke="currentColor" stroke-width="0.7" fill="none"/>'
    return [path, *texts]


def _number(value: float) -> str:
    """At most seven characters."""
    text = f"{value + 0.0:.3g}"  # zero without a sign
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e5 else text.replace("e-0", "e-").replace("e+", "e")


def _bars(at: Array, share: Array, width: float, base: float, names: Sequence[str]) -> list[str]:
    """Bars on ``base``, the tallest of full height and labelled; each says its name when pointed at."""
    tallest = float(share.max()) or 1.0
    parts = []
    for x, part, name in zip(at, share, names, strict=True):
        if part > 0:
            height = max(0.5, _BARS * float(part) / tallest)
            box = f'x="{x - width / 2:.1f}" y="{base - height:.1f}" width="{width:.1f}" height="{height:.1f}"'
            parts.append(f'<rect {box} fill="{_COLOUR}"><title>{escape(name)}</title></rect>')
    top = int(share.argmax())
    return [*parts, _text(at[top], base - _BARS - 4, f"{share[top]:.1%}")]


def _text(x: Any, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:g}" text-anchor="{anchor}" fill="currentColor">{escape(text)}</text>'


def _svg(height: float, parts: Sequence[str], label: str) -> str:
    head = f'width="{_WIDTH}" height="{height:g}" viewBox="0 0 {_WIDTH} {height:g}" role="img"'
    style = "font:11px sans-serif;max-width:100%;background:transparent"
    caption = f'<div style="font-size:smaller">{escape(label)}</div>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {head} aria-label="{escape(label)}" style="{style}">'
    return f"{svg}{''.join(parts)}</svg>{caption}"
