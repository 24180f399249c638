"""The verb `polish`: a plan's units solved once more, for the inputs that they really get."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prismaquant.errors import ArgumentError, StageFileError
from prismaquant.formats import get_scheme
from prismaquant.pipeline.inputs import check_threads, open, plan_of, read_sensitivity, require_extra
from prismaquant.pipeline.work import gram_store, render_cache, spool_folder, windows_file, working
from prismaquant.progress import Progress, silent
from prismaquant.quantity import parse_bytes
from prismaquant.solver import preset_needs_gram

if TYPE_CHECKING:
    from prismaquant.files.plan import Plan
    from prismaquant.files.polish import Polish
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model
    from prismaquant.types import PathLike

__all__ = ["polish"]


def polish(
    model: PathLike | Model,
    plan: PathLike | Plan,
    out: PathLike,
    *,
    sensitivity: PathLike | Sensitivity,
    work_dir: PathLike,
    restart: bool = False,
    max_memory: int | str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = silent,
) -> Polish:
    """Solve the quantized units of ``plan`` again, each for what reaches it behind the quantized layers before it.

    Runs the model forward once, one layer at a time. A unit keeps its new rendering only if that lowers the error on
    windows it was not solved for, and the whole is accepted only if it lowers the measured KL divergence there. Needs
    the extra ``[probe]``.

    Parameters
    ----------
    plan
        Result of `plan`, or its file (the recipe). Its preset must be one that solves for the inputs of the model.
    out
        Folder for the renderings and the report ``polish.json``, for `export`. An interrupted run goes on from what is
        there, and a finished one is returned if its renderings are whole.
    sensitivity
        Result of `probe` that the plan was made from, or its file.
    work_dir
        The work folder of that `probe`.
    restart
        Discard the polish in ``out``, whatever plan it was made for; a folder with anything else in it is refused.
    max_memory, device, threads
        As in `probe`.

    Raises
    ------
    StageFileError
        ``out`` holds the polish of another plan; plan, sensitivity or work folder belong to another model or data.
    RefusedError
        The work folder lacks renderings or Grams of the probe, or another process uses it.
    ArgumentError
        The preset of the plan does not look at the inputs.
    MissingExtraError
        torch or transformers is not installed.
    """
    from prismaquant.files import polish as file

    source = open(model)
    check_threads(threads)
    decided, measured = plan_of(plan, source), read_sensitivity(sensitivity, source)
    assert measured is not None
    if not preset_needs_gram(decided.preset) or decided.calibration is None:
        raise ArgumentError(
            f"was made for the preset {decided.preset!r}, which does not look at the inputs of the model",
            where="plan",
            hint="plan with a sensitivity that was probed with the preset 'best' or 'fast'",
        )
    if decided.calibration != measured.calibration:
        raise StageFileError(
            "was made with other calibration data than the plan", where="sensitivity", hint="plan again with it"
        )
    require_extra("probe", "torch", "transformers")
    from prismaquant.calibration import Draw, fits_in_memory
    from prismaquant.calibration.polish import LAYERS_HELD, Stores, states_bytes
    from prismaquant.calibration.polish import polish as run
    from prismaquant.rendering.cache import polished_cache
    from prismaquant.streaming import Spool

    work, folder = Path(work_dir), Path(out)
    draw = Draw.read(windows_file(work))  # before the folder is claimed: a wrong one is left as it is
    with ExitStack() as stack:
        stack.enter_context(working(work, source, measured.calibration, restart=False))
        if draw.fingerprints != (measured.data, measured.price_data):
            raise StageFileError(
                "holds windows of another probe than the sensitivity's", where=str(work), hint="probe again (--restart)"
            )
        if restart:
            _discard(folder)
        found = _found(folder, source, decided)
        if found is not None:
            found = replace(found, predicted_kl=decided.predicted_kl)  # equal schemes can have other prices
            file.write(folder / file.FILE, found)
            return found
        states = states_bytes(source, draw)
        limit = None if max_memory is None else parse_bytes(max_memory)
        in_memory = fits_in_memory(source, states, limit, layers_held=LAYERS_HELD)
        done = run(
            source,
            decided,
            measured,
            draw,
            Stores(
                render_cache(source, decided.preset, decided.calibration, work),
                polished_cache(folder, decided),
                gram_store(source, measured.calibration, work),
            ),
            spool=None if in_memory else Spool(stack.enter_context(spool_folder(work, states))),
            device=device,
            threads=threads,
            progress=progress,
        )
        file.write(folder / file.FILE, done)
    return done


def _discard(folder: Path) -> None:
    """Remove what polishes wrote into ``folder``.

    Raises
    ------
    StageFileError
        There is something else, too: nothing was removed.
    """
    from prismaquant.files import polish as file

    foreign = sorted(path.name for path in folder.glob("*") if not _is_of_a_polish(path))
    if foreign:
        raise StageFileError(
            f"holds what no polish wrote ({foreign[0]})", where=str(folder), hint="choose another folder"
        )
    (folder / file.FILE).unlink(missing_ok=True)  # first: without it the rest is at most an unfinished polish
    for path in folder.glob("*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_of_a_polish(path: Path) -> bool:
    """Whether ``path`` is a report, what a killed run left of one, or a folder of polished renderings.

    Those have a record beside every rendering but the last, if the run was killed there; the renderings, Grams and
    layers of a probe, in folders of such names too, have none.
    """
    from prismaquant.files import polish as file

    if path.is_dir() and not path.is_symlink():
        names = [entry.name for entry in path.iterdir()]
        recorded = any(name.endswith(".json") for name in names) or len(names) <= 2
        return recorded and re.fullmatch("[0-9a-f]{16}", path.name) is not None
    return path.name == file.FILE or path.name.startswith(f".{file.FILE}.")


def _found(folder: Path, model: Model, plan: Plan) -> Polish | None:
    """The finished and whole polish of ``plan`` in ``folder``, if any; that of another plan is refused."""
    from prismaquant.files import polish as file
    from prismaquant.rendering.cache import polished_cache

    cache = polished_cache(folder, plan)
    others = [
        path for path in folder.glob("*") if path != cache.folder and (path.is_dir() or not _is_of_a_polish(path))
    ]
    report = file.read(folder / file.FILE) if (folder / file.FILE).exists() else None
    if others or (report is not None and report.plan != plan.fingerprint):
        raise StageFileError(
            "holds the polish of another plan, or other files",
            where=str(folder),
            hint="choose another folder, or discard it (--restart)",
        )
    if report is None:
        return None
    units = {unit.name: unit for unit in model.units}
    formats = {each.name: get_scheme(each.scheme).weight_format for each in report.units}
    return None if any(cache.get(units[name], format) is None for name, format in formats.items()) else report
