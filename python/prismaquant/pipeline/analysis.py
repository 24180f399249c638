"""The verbs that look at plans: `frontier`, what every budget buys; `explain`, why; `diff`, what two do differently."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prismaquant.formats import DEFAULT_MENU
from prismaquant.pipeline.inputs import DEFAULT_PRICE, menu_of, open, plan_of, read_sensitivity

if TYPE_CHECKING:
    from prismaquant.files.plan import Plan
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model
    from prismaquant.planning import Difference, Explanation, Frontier
    from prismaquant.types import PathLike

__all__ = ["diff", "explain", "frontier"]


def frontier(
    model: PathLike | Model,
    sensitivity: PathLike | Sensitivity,
    *,
    points: int = 100,
    schemes: Sequence[str] = DEFAULT_MENU,
    activations: str = "native",
    target_device: str | None = None,
    pins: Sequence[str] | None = None,
    price: str = DEFAULT_PRICE,
) -> Frontier:
    """All plans that nothing of no more bytes beats: the vertices of their hull, certified optima, the knee.

    Parameters
    ----------
    points
        Evenly spaced budgets, from the smallest plan to the largest, whose optimum is certified.

    Other parameters are those of `plan`.

    Raises
    ------
    ArgumentError, StageFileError
        As `plan`.
    """
    from prismaquant.planning import Request
    from prismaquant.planning import frontier as run

    source = open(model)
    request = Request(
        schemes=menu_of(schemes), activations=activations, target_device=target_device, pins=pins or (), price=price
    )
    return run(source, read_sensitivity(sensitivity, source), request, points=points)


def diff(before: PathLike | Plan, after: PathLike | Plan) -> Difference:
    """Which units two recipes, or two written folders, store differently.

    Parameters
    ----------
    before, after
        A plan, its file (the recipe), or a folder that `export` wrote.

    Raises
    ------
    StageFileError
        One is no recipe, and no folder with a manifest.
    """
    from prismaquant.planning import difference

    return difference(_plan_in(before), _plan_in(after))


def _plan_in(place: PathLike | Plan) -> Plan:
    from prismaquant.files import manifest
    from prismaquant.files import plan as file
    from prismaquant.files.plan import Plan

    if isinstance(place, Plan):
        return place
    path = Path(place)
    return manifest.read(path / manifest.FILE).plan if path.is_dir() else file.read(path)


def explain(
    model: PathLike | Model,
    plan: PathLike | Plan,
    sensitivity: PathLike | Sensitivity,
    unit: str | None = None,
) -> Explanation:
    """Why the units of ``plan`` have their schemes, what the next byte would buy, and how sure that is.

    The choice is looked at by the budget of the plan and its share of 16-bit activations; other limits, such as
    `max_read`, are not.

    Parameters
    ----------
    plan
        Result of `plan`, or its file (the recipe).
    sensitivity
        What it was made from.
    unit
        Name of a unit or of one of its Linears (default: all).

    Raises
    ------
    ArgumentError
        There is no such unit; names the nearest.
    StageFileError
        The plan or the sensitivity belongs to another model.
    """
    from prismaquant.planning import explain as run

    source = open(model)
    return run(source, read_sensitivity(sensitivity, source), plan_of(plan, source), unit=unit)
