"""The verbs. Each takes paths or objects, imports its stage when it is called, and returns plain data.

`quantize` is the other verbs in a row. Long work keeps its stage files in a work folder, each with the fingerprint of what
it was made from: a second run with the same inputs uses them again.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prismaquant.errors import ArgumentError, MissingExtraError
from prismaquant.formats import DEFAULT_MENU, get_scheme, why_not
from prismaquant.progress import Progress, silent
from prismaquant.quantity import parse_bytes
from prismaquant.solver import DEFAULT_PRESET

if TYPE_CHECKING:
    from prismaquant.exporting.report import VerifyReport
    from prismaquant.exporting.run import ExportReport
    from prismaquant.files.evaluation import Evaluation
    from prismaquant.files.plan import Plan
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model
    from prismaquant.rendering.cache import RenderCache
    from prismaquant.types import PathLike

__all__ = ["QuantizeReport", "evaluate", "export", "open", "plan", "probe", "quantize", "verify"]

DEFAULT_PRICE = "fisher-gram"
SENSITIVITY_FILE = "sensitivity.safetensors"
RECIPE_FILE = "recipe.json"


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """Result of `quantize`: what was decided, what was written, and what reading it back found."""

    plan: Plan
    export: ExportReport
    verify: VerifyReport

    def __repr__(self) -> str:
        return f"QuantizeReport({self.plan!r}, {str(self.export.path)!r}, verified: {self.verify.ok})"


def open(model: PathLike | Model) -> Model:
    """Open a model folder: reads its config and the headers of its shards, no weights.

    Raises
    ------
    ModelError
        Not a model folder, damaged, of an unknown architecture, or already quantized.
    """
    from prismaquant.model import Model, open_model

    return model if isinstance(model, Model) else open_model(model)


def probe(
    model: PathLike | Model,
    data: PathLike,
    *,
    out: PathLike | None = None,
    schemes: Sequence[str] = DEFAULT_MENU,
    samples: int = 128,
    seq_len: int = 512,
    probes: int = 1,
    seed: int = 0,
    preset: str = DEFAULT_PRESET,
    work_dir: PathLike | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> Sensitivity:
    """Measure how much each unit matters, and what each scheme would cost it.

    Walks the model one layer at a time; it is never whole in memory. Needs the extra ``[probe]``.

    Parameters
    ----------
    data
        Calibration text (``.txt``, ``.jsonl``) or token ids (``.npy``).
    out
        Where to keep the result. A file that is there already and was made from the same model, data and settings is
        returned as it is.
    schemes
        The menu whose schemes are rendered and priced.
    samples, seq_len
        Calibration windows and tokens per window.
    probes
        Gradient probes per window.
    preset
        Solver preset that renders the weights.
    work_dir
        Keeps the renderings for `export`.

    Raises
    ------
    ModelError, DataError, NumericError
        The model or the data cannot be used; NaN in weights or activations (where).
    MissingExtraError
        torch or transformers is not installed.
    """
    from prismaquant.files import sensitivity as file

    source = open(model)
    _require("probe", "torch", "transformers")
    from prismaquant.calibration.run import probe as run
    from prismaquant.streaming import read_tokens

    tokens = read_tokens(data, source, samples=samples, seq_len=seq_len, seed=seed)
    menu = tuple(dict.fromkeys(schemes))
    if out is not None and Path(out).exists():
        found = file.read(Path(out))
        wanted = (source.fingerprint, tokens.fingerprint, probes, seed, preset)
        priced = {candidate.scheme for unit in found.units for candidate in unit.candidates}
        if (found.model, found.data, found.probes, found.seed, found.preset) == wanted and priced >= _possible(
            source, menu
        ):
            return found
    cache = None if work_dir is None else _cache(source, preset, work_dir)
    measured = run(
        source,
        tokens,
        schemes=menu,
        preset=preset,
        probes=probes,
        seed=seed,
        cache=cache,
        threads=threads,
        progress=progress,
    )
    if out is not None:
        file.write(Path(out), measured)
    return measured


def plan(
    model: PathLike | Model,
    sensitivity: PathLike | Sensitivity | None = None,
    *,
    bpw: float | None = None,
    size: int | str | None = None,
    schemes: Sequence[str] = DEFAULT_MENU,
    price: str = DEFAULT_PRICE,
    preset: str = DEFAULT_PRESET,
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
        Which price is minimised: ``"fisher-gram"`` or ``"fisher-trace"``.
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

    decided = run(
        open(model),
        _sensitivity(sensitivity),
        bpw=bpw,
        size=None if size is None else parse_bytes(size),
        schemes=tuple(dict.fromkeys(schemes)),
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
    force: bool = False,
    shard_size: int | str = "5GB",
    threads: int | None = None,
    progress: Progress = silent,
) -> ExportReport:
    """Write the checkpoint that ``plan`` describes: a compressed-tensors folder that vLLM and transformers load.

    Parameters
    ----------
    out
        The new folder. It appears by one rename when everything is written; until then nothing is there.
    sensitivity
        Needed only if the plan holds a scheme with a calibrated activation scale (``NVFP4``).
    work_dir
        Where `probe` kept its renderings; without it they are made again (the same bytes).
    force
        Replace ``out`` if it exists (at the end, by rename).

    Raises
    ------
    RefusedError
        ``out`` exists, another process writes it, or the disk is too small: nothing was written.
    StageFileError
        The plan belongs to another model.
    """
    from prismaquant.exporting.run import export as run
    from prismaquant.files import plan as file
    from prismaquant.files.plan import Plan

    source = open(model)
    decided = plan if isinstance(plan, Plan) else file.read(Path(plan))
    return run(
        source,
        decided,
        Path(out),
        sensitivity=_sensitivity(sensitivity),
        cache=None if work_dir is None else _cache(source, decided.preset, work_dir),
        force=force,
        shard_size=parse_bytes(shard_size),
        threads=threads,
        progress=progress,
    )


def verify(
    checkpoint: PathLike,
    *,
    source: PathLike | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> VerifyReport:
    """Read a written folder back and check it against the rules, and against ``source`` where it is given.

    A broken rule is a value in the report, not an exception: see ``report.failures`` and
    ``report.raise_for_failures()``. Needs neither torch nor a GPU.
    """
    from prismaquant.exporting.verify import verify as run

    return run(Path(checkpoint), source=None if source is None else Path(source), threads=threads, progress=progress)


def evaluate(
    checkpoint: PathLike,
    *,
    source: PathLike,
    data: PathLike,
    tokens: int = 16384,
    seq_len: int = 256,
    seed: int = 0,
    out: PathLike | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Measure KL divergence to ``source``, top-1 agreement and perplexity on held-out text.

    Loads both folders as a user would, with transformers and compressed-tensors. Needs the extra ``[eval]``.

    Parameters
    ----------
    data
        Held-out text or token ids: not what the checkpoint was calibrated on.
    tokens, seq_len
        How much to measure, in windows of ``seq_len`` tokens.
    out
        Where to keep the result. A file that is there already and measured the same folders on the same tokens is
        returned as it is.

    Raises
    ------
    ModelError, DataError
        A folder does not load completely, or the data cannot be used.
    MissingExtraError
        torch, transformers or compressed-tensors is not installed.
    """
    from prismaquant.files import evaluation as file

    _require("eval", "torch", "transformers", "compressed_tensors")
    from prismaquant.evaluation.run import evaluate as run

    previous = file.read(Path(out)) if out is not None and Path(out).exists() else None
    measured = run(
        Path(checkpoint),
        source=Path(source),
        data=data,
        tokens=tokens,
        seq_len=seq_len,
        seed=seed,
        previous=previous,
        progress=progress,
    )
    if out is not None:
        file.write(Path(out), measured)
    return measured


def quantize(
    model: PathLike,
    out: PathLike,
    *,
    bpw: float | None = None,
    size: int | str | None = None,
    data: PathLike | None = None,
    schemes: Sequence[str] = DEFAULT_MENU,
    samples: int = 128,
    seq_len: int = 512,
    probes: int = 1,
    seed: int = 0,
    price: str = DEFAULT_PRICE,
    preset: str = DEFAULT_PRESET,
    work_dir: PathLike | None = None,
    force: bool = False,
    shard_size: int | str = "5GB",
    threads: int | None = None,
    progress: Progress = silent,
) -> QuantizeReport:
    """Turn a model folder into a mixed-precision checkpoint: probe, plan, export, verify.

    Parameters
    ----------
    model, out
        The source folder and the new one.
    bpw, size
        The budget, one of the two; see `plan`. Without one the menu must hold one scheme beside BF16: a uniform
        checkpoint.
    data
        Calibration text; needed with a budget, and for schemes with a calibrated activation scale.
    work_dir
        Stage files: sensitivity and renderings. By default ``OUT.work``. Several checkpoints of one model can share it.

    Other parameters are those of `probe`, `plan` and `export`.

    Raises
    ------
    RefusedError
        Before any work: the output exists, the budget fits no plan, the disk is too small.
    VerificationError
        What was written breaks a rule; the folder is left for inspection.
    """
    from prismaquant.exporting.publish import preflight as check_output
    from prismaquant.planning import preflight as check_budget

    source = open(model)
    menu = tuple(dict.fromkeys(schemes))
    total = None if size is None else parse_bytes(size)
    largest = check_budget(source, bpw=bpw, size=total, schemes=menu)
    check_output(Path(out), source=source.path, nbytes=largest, force=force)
    calibrated = bpw is not None or total is not None or any(get_scheme(name).needs_input_amax for name in menu)
    work = Path(f"{Path(out)}.work" if work_dir is None else work_dir)
    sensitivity = None
    if calibrated:
        if data is None:
            raise ArgumentError("data is missing", hint="give calibration text: data=... (--data FILE)")
        sensitivity = probe(
            source,
            data,
            out=work / SENSITIVITY_FILE,
            schemes=menu,
            samples=samples,
            seq_len=seq_len,
            probes=probes,
            seed=seed,
            preset=preset,
            work_dir=work,
            threads=threads,
            progress=progress,
        )
    decided = plan(source, sensitivity, bpw=bpw, size=total, schemes=menu, price=price, preset=preset)
    written = export(
        source,
        decided,
        out,
        sensitivity=sensitivity,
        work_dir=work if calibrated else None,
        force=force,
        shard_size=shard_size,
        threads=threads,
        progress=progress,
    )
    report = verify(out, source=source.path, threads=threads, progress=progress)
    report.raise_for_failures()
    return QuantizeReport(decided, written, report)


def _sensitivity(sensitivity: PathLike | Sensitivity | None) -> Sensitivity | None:
    from prismaquant.files import sensitivity as file
    from prismaquant.files.sensitivity import Sensitivity

    if sensitivity is None or isinstance(sensitivity, Sensitivity):
        return sensitivity
    return file.read(Path(sensitivity))


def _cache(model: Model, preset: str, work_dir: PathLike) -> RenderCache:
    from prismaquant.rendering.cache import RenderCache

    return RenderCache(Path(work_dir) / "renderings", model.fingerprint, preset)


def _possible(model: Model, schemes: Sequence[str]) -> set[str]:
    """The schemes of the menu that the shape of at least one unit allows."""
    return {
        name
        for name in schemes
        if any(all(why_not(get_scheme(name), x.rows, x.columns) is None for x in unit.linears) for unit in model.units)
    }


def _require(extra: str, *modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{' and '.join(missing)} needed, not installed", hint=f"pip install 'prismaquant-cpp[{extra}]'"
        )
