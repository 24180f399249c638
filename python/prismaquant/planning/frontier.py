"""`frontier`: what every budget buys, in one pass, and where another bit stops paying."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prismaquant.errors import ArgumentError
from prismaquant.planning.candidates import with_measured
from prismaquant.planning.pins import with_pinned
from prismaquant.planning.request import Question, Request
from prismaquant.planning.resampling import RESAMPLES, resampled_items
from prismaquant.planning.run import items_of, priced_units

if TYPE_CHECKING:
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model

__all__ = ["Frontier", "FrontierPoint", "Vertices", "frontier", "hull"]

Items = Sequence[Sequence[tuple[int, float]]]
Vertices = Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """A plan that nothing of no more bytes beats.

    Attributes
    ----------
    bytes, bpw
        Of the units.
    predicted_kl
        Sum of the prices, nats per token.
    lower_bound
        Proven: no plan of so many bytes is below it.
    """

    bytes: int
    bpw: float
    predicted_kl: float
    lower_bound: float


@dataclass(frozen=True, slots=True)
class Frontier:
    """Result of `frontier`.

    Attributes
    ----------
    vertices
        The lower convex hull over all plans, all of its vertices, in increasing bytes.
    optima
        The best plan of evenly spaced budgets from the smallest plan to the largest; with losses that never increase.
    knee
        The vertex that lies farthest below the line from the smallest plan to the largest, both axes from 0 to 1
        (Satopaa et al. 2011, "Finding a Kneedle in a Haystack"). Where it is depends on the menu; the band says how
        much of it is chance.
    knee_band
        Bits per weight between which the knee of 95 % of the resamples of the windows lies; ``None``: not known.
    """

    vertices: tuple[FrontierPoint, ...]
    optima: tuple[FrontierPoint, ...]
    knee: FrontierPoint
    knee_band: tuple[float, float] | None

    def __repr__(self) -> str:
        return f"Frontier({len(self.vertices)} vertices, knee at {self.knee.bpw:.3f} bpw)"


def frontier(
    model: Model, sensitivity: Sensitivity, request: Request, *, points: int, resamples: int = RESAMPLES
) -> Frontier:
    """The frontier of all plans of the menu of ``request``.

    Parameters
    ----------
    points
        Number of evenly spaced budgets whose optimum is certified.

    Raises
    ------
    ArgumentError
        ``points`` is below 2.
    FormatError, StageFileError
        As `plan`.
    """
    from prismaquant import _core

    if points < 2:
        raise ArgumentError(f"points is {points}, expected at least 2")
    model = with_pinned(with_measured(model, sensitivity), request.pins)
    menu = Question.of(model, request).menu
    units = priced_units(model, sensitivity, menu, request.price, request.preset or sensitivity.preset)
    items = items_of(units)
    parameters = sum(unit.parameters for unit in model.units)

    def point(size: int, loss: float, bound: float) -> FrontierPoint:
        return FrontierPoint(size, 8 * size / parameters, loss, min(bound, loss))

    vertices = hull(items)
    low, high = vertices[0][0], vertices[-1][0]
    budgets = [low + (high - low) * number // (points - 1) for number in range(points)]
    optima = _core.sweep(*_columns(items), budgets)
    knees = sorted(
        8 * _knee(hull(resampled))[0] / parameters
        for resampled in resampled_items(sensitivity, units, request.price, resamples=resamples)
    )
    knee, edge = _knee(vertices), len(knees) // 40
    return Frontier(
        vertices=tuple(point(size, loss, loss) for size, loss in vertices),
        optima=tuple(point(size, loss, bound - tolerance) for size, loss, bound, tolerance in optima),
        knee=point(*knee, knee[1]),
        knee_band=(knees[edge], knees[-1 - edge]) if knees else None,
    )


def _columns(items: Items) -> tuple[list[list[int]], list[list[float]]]:
    return [[size for size, _ in item] for item in items], [[loss for _, loss in item] for item in items]


def hull(items: Items) -> Vertices:
    """Vertices ``(bytes, loss)`` of the lower convex hull over all choices."""
    from prismaquant import _core

    return _core.frontier(*_columns(items))


def _knee(vertices: Vertices) -> tuple[int, float]:
    """The vertex farthest below the chord."""
    (first, most), (last, least) = vertices[0], vertices[-1]
    if last == first or most == least:
        return vertices[0]
    return max(vertices, key=lambda vertex: (last - vertex[0]) / (last - first) - (vertex[1] - least) / (most - least))
