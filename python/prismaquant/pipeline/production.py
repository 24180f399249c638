"""The verbs around written folders: `export` writes, `verify` reads back, `convert` decodes. They need no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prismaquant.errors import ModelError, RefusedError, StageFileError
from prismaquant.pipeline.inputs import check_threads, folder_of, open, plan_of, read_plan, sensitivity_of
from prismaquant.pipeline.work import render_cache
from prismaquant.progress import Progress, silent
from prismaquant.quantity import parse_bytes

if TYPE_CHECKING:
    from prismaquant.exporting.report import VerifyReport
    from prismaquant.exporting.run import ExportReport
    from prismaquant.exporting.serve import ServeCommand
    from prismaquant.files.plan import Plan
    from prismaquant.files.polish import Polish
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model
    from prismaquant.types import PathLike

__all__ = ["convert", "export", "serve_command", "verify"]


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


def serve_command(
    checkpoint: PathLike,
    *,
    context: int | str | None = None,
    kv: str | None = None,
    tensor_parallel: int | None = None,
    text_only: bool = False,
) -> ServeCommand:
    """The `vllm serve` command for a written folder, what engines get wrong about it, and what was not tested.

    Parameters
    ----------
    context, kv, tensor_parallel
        As in `plan`; by default those that the folder was planned for with ``fit``, if it was, else vLLM's own.
    text_only
        Whether a model that also sees or hears is served for text alone.

    Raises
    ------
    ModelError
        There is no such folder, or it cannot be read.
    ArgumentError
        An unknown KV dtype, or a context that is none.
    """
    from prismaquant.exporting.serve import serve_command as run
    from prismaquant.planning.serving import parse_context

    tokens = None if context is None else parse_context(context)
    return run(_folder(checkpoint), context=tokens, kv=kv, tensor_parallel=tensor_parallel, text_only=text_only)


def convert(
    checkpoint: PathLike,
    out: PathLike,
    *,
    to: str = "dense",
    dtype: str = "bfloat16",
    force: bool = False,
    shard_size: int | str = "5GB",
    threads: int | None = None,
    progress: Progress = silent,
) -> Path:
    """Write a quantized folder as a plain one, a plain one as NF4, or a recipe in the words of another tool.

    Parameters
    ----------
    checkpoint
        The quantized folder; for ``"bitsandbytes"`` the plain one; for another tool also a recipe.
    out
        The new folder; for another tool the new file.
    to
        ``"dense"``: every Linear decoded. ``"bitsandbytes"``: every Linear in NF4 with double quantization, without
        calibration, to compare with. A recipe: ``"llm-compressor"`` (with config groups, YAML), ``"modelopt"`` (a
        ``quant_cfg``, YAML), ``"auto-round"`` (a ``layer_config``, JSON), or ``"llama.cpp"`` (``--tensor-type``
        arguments of llama-quantize, of types of the same size). Layers are called as in the source's folder.
    dtype
        Of the decoded weights: ``"bfloat16"`` or ``"float16"``.
    force
        Replace ``out`` if it exists (at the end, by rename).

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ArgumentError
        An unknown tool, or a Linear or scheme for which it has no word; an unknown dtype.
    ModelError
        The folder cannot be read, is not quantized, or has a Linear of no known scheme; for ``"bitsandbytes"``: is
        quantized already, or has experts.
    NumericError
        For ``"bitsandbytes"``: a weight has a NaN or an infinity.
    RefusedError
        ``out`` exists, another process writes it, or the disk is too small.
    StageFileError
        For another tool: ``checkpoint`` is no recipe, and no folder with a manifest.
    """
    from prismaquant.exporting.dense import densify
    from prismaquant.exporting.nf4 import write_nf4

    check_threads(threads)
    size = parse_bytes(shard_size)
    if to == "dense":
        folder = _folder(checkpoint)
        return densify(folder, Path(out), dtype=dtype, force=force, shard_size=size, threads=threads, progress=progress)
    if to == "bitsandbytes":
        model = open(checkpoint)
        return write_nf4(model, Path(out), force=force, shard_size=size, threads=threads, progress=progress)
    return _translate(checkpoint, Path(out), to, force=force)


def _translate(recipe: PathLike, out: Path, tool: str, *, force: bool) -> Path:
    from prismaquant.exporting.translation import translate
    from prismaquant.files.record import write_atomic

    text = translate(read_plan(recipe), tool)
    if out.exists() and not (force and out.is_file()):
        raise RefusedError("exists", where=str(out), hint="choose another file, or replace it with --force")
    write_atomic(out, text.encode())
    return out


def _folder(checkpoint: PathLike) -> Path:
    folder = Path(checkpoint)
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise ModelError(problem, where=str(folder), hint="give the folder of a written checkpoint")
    return folder


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
    tensor_parallel: int = 1,
    threads: int | None = None,
    progress: Progress = silent,
) -> VerifyReport:
    """Read a written folder back and check it against the rules, and against ``source`` where it is given.

    With ``tensor_parallel`` every Linear must be one that can be divided among so many devices.

    A broken rule is a value in the report, not an exception: see ``report.failures`` and
    ``report.raise_for_failures()``. Needs neither torch nor a GPU.

    Raises
    ------
    ModelError
        There is no such folder, or ``source`` cannot be opened.
    """
    from prismaquant.exporting.verify import verify as run

    check_threads(threads)
    return run(
        _folder(checkpoint),
        source=None if source is None else folder_of(source),
        tensor_parallel=tensor_parallel,
        threads=threads,
        progress=progress,
    )
