"""The verbs that run the model: `probe` and `evaluate`. Each keeps its result in a file, and uses it again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prismaquant.errors import ArgumentError, StageFileError
from prismaquant.formats import DEFAULT_MENU, get_scheme, unknown_name, why_not
from prismaquant.pipeline.inputs import (
    check_known,
    check_threads,
    folder_of,
    make_folder,
    menu_of,
    open,
    require_extra,
)
from prismaquant.pipeline.work import gram_store, journal_folder, render_cache, spool_folder, windows_file, working
from prismaquant.progress import Progress, silent
from prismaquant.quantity import parse_bytes
from prismaquant.solver import CALIBRATED_PRESET, DEFAULT_PRESET, preset_needs_gram

if TYPE_CHECKING:
    from prismaquant.files.evaluation import Evaluation
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model
    from prismaquant.rendering.cache import RenderCache
    from prismaquant.types import PathLike, TowerData

__all__ = ["evaluate", "probe"]


def probe(
    model: PathLike | Model,
    data: PathLike | Sequence[PathLike] | None = None,
    *,
    out: PathLike | None = None,
    schemes: Sequence[str] = DEFAULT_MENU,
    samples: int = 128,
    price_samples: int = 32,
    seq_len: int = 512,
    probes: int = 1,
    price_probes: int = 8,
    prices: Sequence[str] = (),
    seed: int = 0,
    preset: str | None = None,
    preview: bool = False,
    calibrate_all_experts: bool = False,
    mtp: bool = False,
    tower_data: TowerData | None = None,
    strict: bool = False,
    work_dir: PathLike | None = None,
    keep_grams: bool = False,
    restart: bool = False,
    max_memory: int | str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = silent,
) -> Sensitivity:
    """Measure how much each unit matters, and what each scheme would cost it.

    Walks the model one layer at a time; it is never whole in memory. Needs the extra ``[probe]``.

    Parameters
    ----------
    data
        Calibration text (``.txt``, ``.jsonl``), token ids (``.npy``), a folder of them, or several of these; each may
        be followed by options: ``"a.jsonl:n=128"`` (so many windows), ``"b.txt:weight=3"`` (share of the rest),
        ``"folder:split=train"``. ``"self"`` is sampled from the model. By default a built-in text (``"default"``);
        text like what the model will read is better. What was drawn is logged.
    out
        Where to keep the result. A sensitivity that is there already and was made from the same model, data and
        settings is returned as it is if it has prices for all of ``schemes`` and the work folder the renderings; one
        that lacks some is completed, and any other file refused.
    schemes
        The menu whose schemes are rendered and priced.
    samples, price_samples
        Windows that the weights are solved for, and other windows that set the prices. A quarter as many as those, of
        neither, choose the ranges of quantized inputs.
    seq_len
        Tokens per window.
    probes, price_probes
        Gradient probes per window of either.
    prices
        Names of prices to compute beside the usual ones: ``"kfac"``; or ``"measured"``, the KL divergence with the unit
        replaced, which is no estimate, takes time with the square of the number of layers and needs ``work_dir``.
    preset
        Solver preset that renders the weights: by default ``"best"``, in a preview ``"scale_sweep"``.
    preview
        A first look, in less than half the time: nothing is solved for the data, and the one price is
        ``"fisher-trace"``, on the windows that the statistics come from. A plan made from it is exported as it was
        priced, without calibration; `plan` needs ``price="fisher-trace"`` for it.
    calibrate_all_experts
        Solve experts for the inputs of all tokens, as if every token were routed to each of them: helps those that few
        tokens choose, at the cost of running every expert on everything. Prices stay those of the tokens that were
        routed to them.
    mtp
        Measure the layer that predicts a further token (MTP), too, by the loss of its own predictions. A plan from the
        result then chooses its schemes like all others, where it would leave the layer as it is.
    tower_data
        Measure vision and audio towers, too, on prompts with images or audio: files or folders of them, or what the
        model's processor returned. ``.safetensors``: a sample each, what the processor returns for one prompt
        (``input_ids [1, seq_len]``, ``pixel_values``, ...). ``.jsonl``: ``{"messages": [...]}`` in each line, of which
        the processor in the model's folder makes samples; images by ``"path"``, relative to the file. One in four sets
        the prices, one in sixteen the ranges of inputs, the others are solved for: 32 or more are better than few.
    strict
        Refuse a model with weights in its layers that the entry of its architecture does not know; otherwise they stay
        as they are, and are logged.
    work_dir
        Keeps the renderings for `export`, which cannot make those of a preset that solves for the calibration data,
        the Grams of output gradients for `polish`, and the layers that are finished: the same call goes on with the
        next one if it was interrupted.
    keep_grams
        Keep the Grams of the inputs in the work folder, too.
    restart
        Discard the sensitivity in ``out`` and what the work folder holds, whatever they were made from.
    max_memory
        Bytes that may be used, or text (``"24GiB"``); by default half of the machine's memory. Hidden states between
        the layers wait on disk, in the work folder, where they do not fit.
    device
        Where the layers are computed: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...

    Raises
    ------
    ModelError, DataError, NumericError
        The model or the data cannot be used; NaN in weights or activations (where).
    StageFileError
        ``out`` or the work folder is of another model, data or settings, or ``out`` is no sensitivity file.
    RefusedError
        Another process uses the work folder; memory or disk do not suffice.
    ArgumentError
        ``mtp`` for a model that has no such layer, or whose architecture entry does not say how it computes;
        ``tower_data`` for one without a tower.
    MissingExtraError
        torch or transformers is not installed.
    """
    from prismaquant.files import sensitivity as file
    from prismaquant.model.mtp import with_mtp
    from prismaquant.model.towers import with_towers
    from prismaquant.planning.candidates import with_measured

    source, menu = open(model), menu_of(schemes)
    seeing = None if tower_data is None else with_towers(source)
    if mtp:
        source = with_mtp(source)
    check_threads(threads)
    check_known(source, strict=strict)
    if preset is None:
        preset = DEFAULT_PRESET if preview else CALIBRATED_PRESET
    if preview:
        _check_preview(preset, prices, work_dir)
    require_extra("probe", "torch", "transformers")
    from prismaquant.calibration import (
        DEFAULT_PRICES,
        MEASURED,
        PREVIEW_PRICE,
        PRICE_NAMES,
        deal,
        fits_in_memory,
        measure,
        split,
        states_bytes,
    )
    from prismaquant.calibration import probe as run
    from prismaquant.streaming import Spool, read_samples, read_tokens

    for name, count in (("samples", samples), ("price_samples", price_samples)):
        if count < 1:
            raise ArgumentError(f"{name} is {count}", hint="ask for at least 1 window")
    wanted = (PREVIEW_PRICE,) if preview else tuple(dict.fromkeys((*DEFAULT_PRICES, *prices)))
    if mtp and seq_len < 2:
        raise ArgumentError(f"seq_len is {seq_len}", hint="an MTP layer needs at least 2 tokens per window")
    for name in wanted:
        if name not in PRICE_NAMES:
            raise unknown_name("price", name, PRICE_NAMES)
    if MEASURED in wanted and work_dir is None:
        raise ArgumentError(f"price {MEASURED} needs the renderings", hint="name a work folder for them (--work-dir)")
    if MEASURED in wanted and (mtp or tower_data is not None):
        raise ArgumentError(
            f"price {MEASURED} is of the model on text, not of its MTP layer or towers", hint="leave one of them out"
        )
    others = (0, 0) if preview else (-(-price_samples // 4), price_samples)
    tokens = read_tokens(data, source, samples=samples + sum(others), seq_len=seq_len, seed=seed)
    draw = split(tokens, statistics=samples, ranges=others[0], prices=others[1], seed=seed)
    solved_for, priced_on = draw.fingerprints
    if preview:
        priced_on, price_probes = solved_for, probes
    towers = None
    if seeing is not None and tower_data is not None:
        towers = deal(seeing, read_samples(tower_data, source), preview=preview, seed=seed)
    seen, seen_priced = (None, None) if towers is None else towers.fingerprints
    calibration = file.calibration_of(solved_for, probes, seed, calibrate_all_experts, seen)
    states = max(states_bytes(source, each, probes, price_probes) for each in (draw, towers) if each is not None)
    limit = None if max_memory is None else parse_bytes(max_memory)
    in_memory = all([fits_in_memory(each, states, limit) for each in (source, seeing) if each is not None])
    with ExitStack() as stack:
        work = cache = grams = None
        if work_dir is not None:
            work = Path(work_dir)
            stack.enter_context(working(work, source, calibration, restart=restart))
            cache, grams = render_cache(source, preset, calibration, work), gram_store(source, calibration, work)
        found = None if out is None or not Path(out).exists() else file.read(Path(out))
        if out is not None and found is not None and not restart:
            settings = {
                "model": source.fingerprint,
                "data": solved_for,
                "price_data": priced_on,
                "probes": probes,
                "price_probes": price_probes,
                "seed": seed,
                "preset": preset,
                "calibrate_all_experts": calibrate_all_experts,
                "tower_data": seen,
                "tower_price_data": seen if preview else seen_priced,
            }
            _check_settings(Path(out), found, settings)
            priced = tuple(dict.fromkeys(each.scheme for unit in found.units for each in unit.candidates))
            on_text = {unit.name for unit in found.units if not unit.tower}
            source = source.with_units(unit for unit in source.kept_units if unit.name in on_text)
            whole = with_measured(source, found)
            complete = on_text.issuperset(unit.name for unit in source.units)
            complete = complete and _possible(whole, menu) <= set(priced) and set(wanted) <= set(found.prices)
            if complete and not _lacks_renderings(whole, menu, cache):
                return found
            # so that builds with either menu, and plans by either price, can share the file
            menu, wanted = menu_of((*menu, *priced)), menu_of((*wanted, *found.prices))
        if out is not None:
            make_folder(Path(out).parent)
        if work is not None:
            draw.write(windows_file(work))
        spool = None if in_memory else Spool(stack.enter_context(spool_folder(work, states)))
        measured = run(
            source,
            draw,
            schemes=menu,
            preset=preset,
            prices=[name for name in wanted if name != MEASURED],
            preview=preview,
            calibrate_all_experts=calibrate_all_experts,
            probes=probes,
            price_probes=price_probes,
            seed=seed,
            cache=cache,
            grams=grams,
            keep_grams=keep_grams,
            journal=None if work is None else journal_folder(work),
            towers=towers,
            spool=spool,
            device=device,
            threads=threads,
            progress=progress,
        )
        if MEASURED in wanted:
            assert work is not None
            assert cache is not None
            measured = measure(
                source,
                draw,
                measured,
                cache,
                journal=journal_folder(work),
                spool=spool,
                device=device,
                threads=threads,
                progress=progress,
            )
        if out is not None:
            file.write(Path(out), measured)
            if work is not None:
                shutil.rmtree(journal_folder(work), ignore_errors=True)
    return measured


def evaluate(
    checkpoint: PathLike,
    *,
    source: PathLike | Model,
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
        Where to keep the result. An evaluation that is there already and measured the same folders on the same tokens
        is returned as it is; any other evaluation is replaced, and any other file refused.

    Raises
    ------
    ModelError, DataError
        A folder does not load completely, or the data cannot be used.
    StageFileError
        ``out`` is there and is no evaluation file.
    MissingExtraError
        torch, transformers or compressed-tensors is not installed.
    """
    from prismaquant.files import evaluation as file

    require_extra("eval", "torch", "transformers", "compressed_tensors")
    from prismaquant.evaluation.run import evaluate as run

    previous = None
    if out is not None:
        previous = file.read(Path(out)) if Path(out).exists() else None
        make_folder(Path(out).parent)
    measured = run(
        Path(checkpoint),
        source=folder_of(source),
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


def _check_preview(preset: str, prices: Sequence[str], work_dir: PathLike | None) -> None:
    """Refuse what a preview does not do."""
    if preset_needs_gram(preset):
        raise ArgumentError(
            f"preset {preset!r} solves for the data, a preview does not", hint=f"leave it out, or say {DEFAULT_PRESET}"
        )
    if prices:
        raise ArgumentError("a preview has one price, fisher-trace", where="prices", hint="leave prices out")
    if work_dir is not None:
        raise ArgumentError("a preview keeps no renderings", where="work_dir", hint="leave the work folder out")


def _check_settings(path: Path, found: Sensitivity, settings: Mapping[str, Any]) -> None:
    """Refuse a sensitivity that was measured otherwise: names what differs."""
    for name, value in settings.items():
        if getattr(found, name) != value:
            hashes = isinstance(value, str) and value.startswith("sha256:")
            raise StageFileError(
                f"was made with another {name}" + ("" if hashes else f" ({getattr(found, name)}, now {value})"),
                where=str(path),
                hint="choose another file, or discard it (--restart)",
            )


def _possible(model: Model, schemes: Sequence[str]) -> set[str]:
    """The schemes of the menu that the shape of at least one unit allows."""
    return {
        name
        for name in schemes
        if any(all(why_not(get_scheme(name), x.rows, x.columns) is None for x in unit.linears) for unit in model.units)
    }


def _lacks_renderings(model: Model, schemes: Sequence[str], cache: RenderCache | None) -> bool:
    """Whether `export` would look in vain for a rendering that the probe kept."""
    return cache is not None and any(
        cache.lacks(unit, get_scheme(name).weight_format)
        for unit in model.units
        for name in schemes
        if all(why_not(get_scheme(name), x.rows, x.columns) is None for x in unit.linears)
    )
