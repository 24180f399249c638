"""The verbs that decide and look at decisions: `plan` and what surrounds it. They need no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prismaquant.formats import DEFAULT_MENU
from prismaquant.pipeline.inputs import (
    DEFAULT_PRICE,
    menu_of,
    open,
    plan_of,
    read_plan,
    read_sensitivity,
    sensitivity_of,
)

if TYPE_CHECKING:
    from prismaquant.files.plan import Plan
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model
    from prismaquant.planning import Difference, Explanation, Frontier, Outlook
    from prismaquant.types import PathLike

__all__ = ["diff", "explain", "frontier", "outlook", "plan"]


def plan(
    model: PathLike | Model,
    sensitivity: PathLike | Sensitivity | None = None,
    *,
    bpw: float | None = None,
    size: int | str | None = None,
    fit: int | str | None = None,
    max_loss: float | None = None,
    context: int | str | None = None,
    kv: str = "auto",
    concurrency: int = 1,
    tensor_parallel: int = 1,
    reserve: int | str | None = None,
    max_read: int | str | None = None,
    schemes: Sequence[str] = DEFAULT_MENU,
    activations: str = "native",
    a16_share: float | None = None,
    target_device: str | None = None,
    pins: Sequence[str] | None = None,
    price: str = DEFAULT_PRICE,
    preset: str | None = None,
    out: PathLike | None = None,
) -> Plan:
    """Choose a scheme for every unit: the least expected KL divergence within a budget, proven optimal.

    Parameters
    ----------
    sensitivity
        Result of `probe`, or its file. Not needed for a uniform plan (no budget and one scheme beside BF16); `outlook`
        says what fits without one.
    bpw
        Budget in bits per weight: everything stored for the body's Linears over their weights.
    size
        Budget for all tensors of the folder, in bytes or as text (``"20GiB"``).
    fit
        Memory of one device, in bytes, as text, or the name of a device (``"RTX-5090"``): weights, KV cache and what
        the engine needs must fit. May be given beside another budget; then both hold.
    max_loss
        Instead of a budget: the fewest bytes whose predicted loss, in nats per token, is not above it.
    context
        Tokens of a sequence, a number or ``"32k"`` (default: all that the model was made for).
    kv
        How keys and values are kept: ``"auto"`` (BF16), ``"fp8"`` (the folder gets scales for it) or ``"nvfp4"``.
    concurrency
        Sequences of ``context`` tokens at the same time.
    tensor_parallel
        Devices that share the model; ``fit`` is the memory of each.
    reserve
        Bytes of a device for the engine's activations, instead of an estimate.
    max_read
        Largest number of bytes of weights that decoding a token may read, of experts as many as are expected.
    schemes
        The menu, by default what of it was measured; BF16 is always the way out for a unit whose shape fits no other.
    activations
        Of schemes with one weight format, ``"native"`` takes that with the activations of the format, ``"16"`` none
        that quantizes activations, ``"auto"`` what pays more, under ``a16_share``.
    a16_share
        With ``"auto"``: share of the operations of all Linears that may keep 16-bit activations although their format
        has its own (default: all).
    target_device
        A device, or a family such as ``"hopper"``: schemes that vLLM does not serve on it are left out of the menu.
    pins
        ``"PATTERN=SCHEME"`` each: units, by their name or a Linear's, by a glob or by ``re:`` and a regular expression,
        that get this scheme. Later pins override earlier ones. A pattern that none of the layers has may name what else
        would stay as it is: the output head, MTP layers, towers. Those then count like all units in ``bpw``, and have
        no price.
    price
        Which price is minimised, of those that ``sensitivity`` has: ``"directional"``, ``"fisher-gram"``,
        ``"fisher-trace"``, ...
    preset
        Solver preset that renders the weights: by default the one that ``sensitivity`` was measured with, and no other
        then; without a sensitivity a data-free one, by default ``"scale_sweep"``.
    out
        Where to write the recipe (JSON).

    Raises
    ------
    BudgetError
        The budget is below the smallest possible plan, or above BF16; the error carries both in bytes.
    ArgumentError, StageFileError
        Contradictory arguments; a sensitivity of another model or without a scheme of the menu.
    """
    from prismaquant.files import plan as file
    from prismaquant.planning import Request
    from prismaquant.planning import plan as run

    source = open(model)
    request = Request(
        bpw=bpw,
        size=size,
        fit=fit,
        max_loss=max_loss,
        context=context,
        kv=kv,
        concurrency=concurrency,
        tensor_parallel=tensor_parallel,
        reserve=reserve,
        max_read=max_read,
        schemes=menu_of(schemes),
        activations=activations,
        a16_share=a16_share,
        target_device=target_device,
        pins=pins or (),
        price=price,
        preset=preset,
    )
    decided = run(source, sensitivity_of(sensitivity, source), request)
    if out is not None:
        file.write(Path(out), decided)
    return decided


def outlook(
    model: PathLike | Model,
    *,
    bpw: float | None = None,
    size: int | str | None = None,
    fit: int | str | None = None,
    context: int | str | None = None,
    kv: str = "auto",
    concurrency: int = 1,
    tensor_parallel: int = 1,
    reserve: int | str | None = None,
    schemes: Sequence[str] = DEFAULT_MENU,
    activations: str = "native",
    target_device: str | None = None,
    pins: Sequence[str] | None = None,
) -> Outlook:
    """What fits, from the headers alone: the budget that is asked for, or every known device, with the bits it leaves.

    Parameters are those of `plan`.

    Raises
    ------
    ArgumentError, FormatError
        Contradictory arguments, unknown names.
    ModelError
        The model cannot be opened, or its config does not say how large its KV cache is.
    """
    from prismaquant.planning import Request
    from prismaquant.planning import outlook as run

    request = Request(
        bpw=bpw,
        size=size,
        fit=fit,
        context=context,
        kv=kv,
        concurrency=concurrency,
        tensor_parallel=tensor_parallel,
        reserve=reserve,
        schemes=menu_of(schemes),
        activations=activations,
        target_device=target_device,
        pins=pins or (),
    )
    return run(open(model), request)


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

    return difference(read_plan(before), read_plan(after))


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
        Result of `plan`, its file (the recipe), or a folder that was exported by it.
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
