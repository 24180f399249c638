"""The verb `quantize`: all stages in a row, after a look at everything that could stop them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prismaquant.errors import ArgumentError, RefusedError, StageFileError
from prismaquant.formats import BF16, DEFAULT_MENU, get_scheme, stored_bytes, unknown_name, why_not
from prismaquant.pipeline.inputs import DEFAULT_PRICE, check_known, check_threads, menu_of, open, require_extra
from prismaquant.pipeline.measurement import probe
from prismaquant.pipeline.polishing import polish as run_polish
from prismaquant.pipeline.production import export, verify
from prismaquant.pipeline.validation import Validated, validated
from prismaquant.pipeline.work import polish_folder, render_cache
from prismaquant.progress import Progress, silent
from prismaquant.quantity import format_bytes, parse_bytes
from prismaquant.solver import CALIBRATED_PRESET, DEFAULT_PRESET, preset_needs_gram

if TYPE_CHECKING:
    from prismaquant.exporting.report import VerifyReport
    from prismaquant.exporting.run import ExportReport
    from prismaquant.files.plan import Plan
    from prismaquant.files.polish import Polish
    from prismaquant.model import Model
    from prismaquant.rendering.cache import RenderCache
    from prismaquant.types import PathLike, TowerData

__all__ = ["QuantizeReport", "quantize"]

_SENSITIVITY_FILE = "sensitivity.safetensors"


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """Result of `quantize`: what was decided, what was written, and what reading it back found.

    ``work_dir`` is where the stage files are (``None``: there are none). The checkpoint does not need them.
    ``validated`` are the plans that were measured, where that was asked for.
    """

    plan: Plan
    export: ExportReport
    verify: VerifyReport
    work_dir: Path | None
    validated: tuple[Validated, ...] = ()

    def __repr__(self) -> str:
        return f"QuantizeReport({self.plan!r}, {str(self.export.path)!r}, verified: {self.verify.ok})"


def quantize(
    model: PathLike | Model,
    out: PathLike,
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
    data: PathLike | Sequence[PathLike] | None = None,
    schemes: Sequence[str] = DEFAULT_MENU,
    activations: str = "native",
    a16_share: float | None = None,
    target_device: str | None = None,
    pins: Sequence[str] | None = None,
    samples: int = 128,
    price_samples: int = 32,
    seq_len: int = 512,
    probes: int = 1,
    price_probes: int = 8,
    seed: int = 0,
    price: str = DEFAULT_PRICE,
    preset: str | None = None,
    polish: bool = True,
    validate: int = 0,
    calibrate_all_experts: bool = False,
    mtp: bool = False,
    tower_data: TowerData | None = None,
    strict: bool = False,
    work_dir: PathLike | None = None,
    restart: bool = False,
    force: bool = False,
    shard_size: int | str = "5GB",
    max_memory: int | str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = silent,
) -> QuantizeReport:
    """Turn a model folder into a mixed-precision checkpoint: probe, plan, polish, export, verify.

    Parameters
    ----------
    model, out
        The source folder and the new one.
    bpw, size, fit, max_loss
        The budget; see `plan`. Without one the menu must hold one scheme beside BF16: a uniform checkpoint.
    data
        Calibration text, see `probe`. With a budget, for schemes with a calibrated activation scale, and for presets
        that solve for it, the default is a built-in text; otherwise none is used.
    preset
        Solver preset that renders the weights: by default ``"best"`` where data is used, else ``"scale_sweep"``.
    polish
        Whether the chosen units are solved once more for the inputs that they really get (`polish`), where the preset
        solves for inputs at all.
    validate
        So many plans, of budgets from the smallest up to the one that is asked for, are built and measured beside the
        uniform ones that fit; the one with the least measured loss is written. 0: the plan is trusted.
    strict
        Refuse a model with weights in its layers that the entry of its architecture does not know.
    work_dir
        Stage files: sensitivity and renderings. By default ``OUT.work``, where there are any. Several checkpoints of
        one model can share it.

    Other parameters are those of `probe`, `plan` and `export`.

    Raises
    ------
    ArgumentError
        Before any work: contradictory arguments, or unknown names.
    RefusedError
        Before any work: the output exists, the budget fits no plan, the disk is too small, the data cannot be used.
    VerificationError
        What was written breaks a rule; the folder is left for inspection.
    """
    from prismaquant.model.mtp import with_mtp
    from prismaquant.model.towers import with_towers
    from prismaquant.planning import Request
    from prismaquant.planning import plan as choose
    from prismaquant.planning import preflight as check_budget
    from prismaquant.planning.candidates import with_measured

    source, menu = open(model), menu_of(schemes)
    if mtp:
        source = with_mtp(source)
    everything = source if tower_data is None else with_towers(source)
    shard_bytes = parse_bytes(shard_size)
    target = Path(out).resolve()  # now: with force, it may be the current folder that is replaced
    asked = Request(
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
        schemes=menu,
        activations=activations,
        a16_share=a16_share,
        target_device=target_device,
        pins=pins or (),
        price=price,
        preset=preset,
    )
    budgeted = any(value is not None for value in (bpw, size, fit, max_loss, max_read))
    calibrated = budgeted or kv == "fp8" or any(get_scheme(name).input_scale for name in menu)
    if preset is None:
        preset = CALIBRATED_PRESET if calibrated or data is not None else DEFAULT_PRESET
    calibrated = calibrated or mtp or tower_data is not None or preset_needs_gram(preset)
    if validate < 0:
        raise ArgumentError(f"validate is {validate}, expected a number of plans")
    if validate and not (budgeted and preset_needs_gram(preset)):
        raise ArgumentError(
            "only a budget has plans to compare, and only what is solved for inputs is measured",
            where="validate",
            hint="give a budget and the preset 'best' or 'fast', or leave validate out",
        )
    work = _work_folder(target, work_dir) if calibrated or work_dir is not None else None
    check_threads(threads)
    if strict or not calibrated:  # else the probe will say it
        check_known(source, strict=strict)
    largest = check_budget(everything, asked)
    builds = validate + len(menu) if validate else int(polish)
    _check_room(everything, menu, target, largest, work, preset, force=force, builds=builds)
    if calibrated:
        _check_calibration(price)
    sensitivity = None
    if calibrated:
        assert work is not None
        sensitivity = probe(
            source,
            data,
            out=work / _SENSITIVITY_FILE,
            schemes=menu,
            samples=samples,
            price_samples=price_samples,
            seq_len=seq_len,
            probes=probes,
            price_probes=price_probes,
            prices=(price,),
            seed=seed,
            preset=preset,
            calibrate_all_experts=calibrate_all_experts,
            mtp=mtp,
            tower_data=tower_data,
            work_dir=work,
            restart=restart,
            max_memory=max_memory,
            device=device,
            threads=threads,
            progress=progress,
        )
        source = with_measured(source, sensitivity)
    decided = choose(source, sensitivity, replace(asked, preset=preset))

    def polished(plan: Plan) -> Polish:
        assert sensitivity is not None
        assert work is not None
        return run_polish(
            source,
            plan,
            polish_folder(work, plan),
            sensitivity=sensitivity,
            work_dir=work,
            max_memory=max_memory,
            device=device,
            threads=threads,
            progress=progress,
        )

    tried: tuple[Validated, ...] = ()
    if validate:
        assert sensitivity is not None
        tried = validated(
            source, sensitivity, replace(asked, preset=preset), decided, validate, polished, polish=polish
        )
        decided = next(each.plan for each in tried if each.chosen)
    renderings = None
    if polish and sensitivity is not None and work is not None and _is_solved(decided):
        polished(decided)
        renderings = polish_folder(work, decided)
    written = export(
        source,
        decided,
        target,
        sensitivity=sensitivity,
        work_dir=work,
        renderings=renderings,
        force=force,
        shard_size=shard_bytes,
        threads=threads,
        progress=progress,
    )
    try:
        report = verify(target, source=source, threads=threads, progress=progress)
    except BaseException as error:
        error.add_note(f"{written.path} is complete, but not verified")
        raise
    report.raise_for_failures()
    return QuantizeReport(decided, written, report, work, tried)


def _is_solved(plan: Plan) -> bool:
    """Whether a unit was solved for its inputs."""
    return preset_needs_gram(plan.preset) and any(unit.scheme != BF16 for unit in plan.units)


def _work_folder(target: Path, work_dir: PathLike | None) -> Path:
    """The folder of stage files, which must not be where the checkpoint appears."""
    work = Path(f"{target}.work") if work_dir is None else Path(work_dir)
    absolute = work.resolve()
    if absolute == target or target in absolute.parents:
        raise ArgumentError(f"{work} is in the output folder", where="work_dir", hint="choose a folder outside of it")
    return work


def _check_calibration(price: str) -> None:
    require_extra("probe", "torch", "transformers")
    from prismaquant.calibration import PRICE_NAMES

    if price not in PRICE_NAMES:
        raise unknown_name("price", price, PRICE_NAMES)


def _check_room(
    model: Model,
    menu: Sequence[str],
    target: Path,
    nbytes: int,
    work: Path | None,
    preset: str,
    *,
    force: bool,
    builds: int,
) -> None:
    """Refuse if ``target`` may not be written, or the disk is too small for its ``nbytes`` and the stage files."""
    from prismaquant.exporting.publish import preflight as check_output
    from prismaquant.rendering.grams import output_gram_bytes

    stage_bytes = 0
    if work is not None:
        stage_bytes = _missing_renderings(model, menu, _kept_renderings(model, preset, work))
        if preset_needs_gram(preset):
            stage_bytes += sum(output_gram_bytes(linear.rows) for unit in model.units for linear in unit.linears)
            stage_bytes += builds * nbytes  # at most: a polish keeps one rendering of each unit
    on_one_disk = work is not None and _disk(work) == _disk(target)
    check_output(target, source=model.path, nbytes=nbytes + (stage_bytes if on_one_disk else 0), force=force)
    if work is None or on_one_disk:
        return
    free = shutil.disk_usage(_existing(work)).free
    if free < stage_bytes:
        raise RefusedError(
            f"{format_bytes(stage_bytes)} needed for stage files, {format_bytes(free)} free",
            where=str(work),
            hint="free some space, or choose a work folder on another disk (--work-dir)",
        )


def _kept_renderings(model: Model, preset: str, work: Path) -> RenderCache:
    """Those in ``work`` of the sensitivity that is there, if any; a probe with other data makes new ones."""
    from prismaquant.files import sensitivity as file

    try:
        calibration = file.read(work / _SENSITIVITY_FILE).calibration
    except StageFileError:
        calibration = None
    return render_cache(model, preset, calibration, work)


def _missing_renderings(model: Model, menu: Sequence[str], cache: RenderCache) -> int:
    """Bytes of the renderings of ``menu`` that are not in the work folder yet."""
    formats = {get_scheme(name).weight_format: get_scheme(name) for name in menu if name != BF16}
    return sum(
        sum(stored_bytes(scheme, linear.rows, linear.columns) for linear in unit.linears)
        for unit in model.units
        for name, scheme in formats.items()
        if not any(why_not(scheme, linear.rows, linear.columns) for linear in unit.linears)
        and not cache.path(unit.name, name).exists()
    )


def _disk(path: Path) -> int:
    """The disk on which ``path`` is or would be made."""
    return _existing(path).stat().st_dev


def _existing(path: Path) -> Path:
    """The nearest folder on the way to ``path`` that is there."""
    absolute = path.resolve()
    return next(folder for folder in (absolute, *absolute.parents) if folder.exists())
