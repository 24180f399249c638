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
    from prismaquant.exporting.serve import ServeCommand
    from prismaquant.files.plan import Plan
    from prismaquant.files.polish import Polish
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model
    from prismaquant.planning import Outlook
    from prismaquant.types import PathLike

__all__ = ["convert", "export", "outlook", "plan", "serve_command", "verify"]


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
        How keys and values are kept: ``"auto"`` (BF16), ``"fp8"`` or ``"nvfp4"``.
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
        that get this scheme. Later pins override earlier ones.
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
    dtype: str = "bfloat16",
    force: bool = False,
    shard_size: int | str = "5GB",
    threads: int | None = None,
    progress: Progress = silent,
) -> Path:
    """Write a quantized folder as a plain one, every Linear decoded, for engines without the kernels.

    Parameters
    ----------
    dtype
        Of the decoded weights: ``"bfloat16"`` or ``"float16"``.
    force
        Replace ``out`` if it exists (at the end, by rename).

    Returns
    -------
    Path
        The new folder.

    Raises
    ------
    ModelError
        The folder cannot be read, is not quantized, or has a Linear of no known scheme.
    RefusedError
        ``out`` exists, another process writes it, or the disk is too small.
    """
    from prismaquant.exporting.dense import densify

    check_threads(threads)
    return densify(
        _folder(checkpoint),
        Path(out),
        dtype=dtype,
        force=force,
        shard_size=parse_bytes(shard_size),
        threads=threads,
        progress=progress,
    )


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
