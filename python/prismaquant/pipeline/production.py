"""The verbs that need no torch: `plan` decides, `export` writes, `verify` reads back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prismaquant.errors import ModelError, StageFileError
from prismaquant.formats import DEFAULT_MENU
from prismaquant.pipeline.inputs import (
    DEFAULT_PRICE,
    check_threads,
    folder_of,
    menu_of,
    open,
    plan_of,
    sensitivity_of,
)
from prismaquant.pipeline.work import render_cache
from prismaquant.progress import Progress, silent
from prismaquant.quantity import parse_bytes

if TYPE_CHECKING:
    from prismaquant.exporting.report import VerifyReport
    from prismaquant.exporting.run import ExportReport
    from prismaquant.files.plan import Plan
    from prismaquant.files.polish import Polish
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model
    from prismaquant.types import PathLike

__all__ = ["export", "plan", "verify"]


def plan(
    model: PathLike | Model,
    sensitivity: PathLike | Sensitivity | None = None,
    *,
    bpw: float | None = None,
    size: int | str | None = None,
    schemes: Sequence[str] = DEFAULT_MENU,
    price: str = DEFAULT_PRICE,
    preset: str | None = None,
    out: PathLike | None = None,
) -> Plan:
    """Choose a scheme for every unit: the least expected KL divergence within a budget, proven optimal.

    Parameters
    ----------
    sensitivity
        Result of `probe`, or its file. Not needed for a uniform plan (no budget and one scheme beside BF16).
    bpw
        Budget in bits per weight: everything stored for the body's Linears over their weights.
    size
        Budget for all tensors of the folder, in bytes or as text (``"20GiB"``).
    schemes
        The menu; BF16 is always the way out for a unit whose shape fits no other.
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
    from prismaquant.planning import plan as run

    source = open(model)
    decided = run(
        source,
        sensitivity_of(sensitivity, source),
        bpw=bpw,
        size=None if size is None else parse_bytes(size),
        schemes=menu_of(schemes),
        price=price,
        preset=preset,
    )
    if out is not None:
        file.write(Path(out), decided)
    return decided


def export(
    model: PathLike | Model,
    plan: PathLike | Plan,
    out: PathLike,
    *,
    sensitivity: PathLike | Sensitivity | None = None,
    work_dir: PathLike | None = None,
    renderings: PathLike | None = None,
    force: bool = False,
    shard_size: int | str = "5GB",
    threads: int | None = None,
    progress: Progress = silent,
) -> ExportReport:
    """Write the checkpoint that ``plan`` describes: a compressed-tensors folder that vLLM and transformers load.

    Parameters
    ----------
    plan
        Result of `plan`, or its file (the recipe).
    out
        The new folder. It appears by one rename when everything is written; until then nothing is there.
    sensitivity
        Needed only if the plan holds a scheme with a calibrated activation scale (``NVFP4``).
    work_dir
        Where `probe` kept its renderings. Without it those of a data-free preset are made again (the same bytes).
    renderings
        Folder that `polish` has filled for this plan. Its renderings are written if they were accepted, else those of
        ``work_dir``.
    force
        Replace ``out`` if it exists (at the end, by rename).

    Raises
    ------
    RefusedError
        ``out`` exists, another process writes it, or the disk is too small; the plan needs a sensitivity, or a work
        folder, that was not given: nothing was written.
    StageFileError
        The plan belongs to another model, or ``renderings`` to another plan.
    """
    from prismaquant.exporting.run import export as run
    from prismaquant.rendering.cache import polished_cache

    check_threads(threads)
    source = open(model)
    decided = plan_of(plan, source)
    polish = None if renderings is None else _polish_of(Path(renderings), decided)
    cache = None if work_dir is None else render_cache(source, decided.preset, decided.calibration, Path(work_dir))
    if renderings is not None and polish is not None and polish.accepted:
        cache = polished_cache(Path(renderings), decided)
    return run(
        source,
        decided,
        Path(out),
        sensitivity=sensitivity_of(sensitivity, source),
        cache=cache,
        polish=polish,
        force=force,
        shard_size=parse_bytes(shard_size),
        threads=threads,
        progress=progress,
    )


def _polish_of(folder: Path, plan: Plan) -> Polish:
    """The report of the polish of ``plan`` in ``folder``."""
    from prismaquant.files import polish as file

    found = file.read(folder / file.FILE)
    if found.plan != plan.fingerprint:
        raise StageFileError("is of another plan", where=str(folder / file.FILE), hint="polish this plan")
    return found


def verify(
    checkpoint: PathLike,
    *,
    source: PathLike | Model | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> VerifyReport:
    """Read a written folder back and check it against the rules, and against ``source`` where it is given.

    A broken rule is a value in the report, not an exception: see ``report.failures`` and
    ``report.raise_for_failures()``. Needs neither torch nor a GPU.

    Raises
    ------
    ModelError
        There is no such folder, or ``source`` cannot be opened.
    """
    from prismaquant.exporting.verify import verify as run

    check_threads(threads)
    folder = Path(checkpoint)
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise ModelError(problem, where=str(folder), hint="give the folder of a written checkpoint")
    return run(folder, source=None if source is None else folder_of(source), threads=threads, progress=progress)
