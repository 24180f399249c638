"""`export`: a model and a plan become a compressed-tensors folder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prismaquant.errors import ModelError, NumericError, RefusedError, StageFileError
from prismaquant.exporting import config, copy, schemes, shards
from prismaquant.exporting.cache_scales import SCHEME as CACHE_SCHEME
from prismaquant.exporting.cache_scales import cache_scales
from prismaquant.exporting.checksums import write_checksums
from prismaquant.exporting.journal import Journal
from prismaquant.exporting.publish import publishing
from prismaquant.files import manifest
from prismaquant.files.fingerprint import fingerprint
from prismaquant.files.manifest import KeptRecord, LinearRecord, Manifest
from prismaquant.formats import BF16, get_scheme, why_not
from prismaquant.model.kept import NO_LAYER
from prismaquant.progress import Event, Progress, silent
from prismaquant.rendering.cache import render_cached
from prismaquant.rendering.input_scale import static_scale
from prismaquant.rendering.render import needs_grams
from prismaquant.solver import DEFAULT_PRESET, preset_needs_gram

if TYPE_CHECKING:
    from prismaquant.files.plan import Plan
    from prismaquant.files.polish import Polish
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model, Unit
    from prismaquant.rendering.cache import RenderCache
    from prismaquant.types import Array

__all__ = ["ExportReport", "export"]

#: So much is written again at most after a run was killed.
_SYNC_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class ExportReport:
    """Result of `export`: the folder, and the manifest that lies in it."""

    path: Path
    manifest: Manifest

    def __repr__(self) -> str:
        bits = self.manifest.bits_per_parameter
        return f"ExportReport({str(self.path)!r}, {self.manifest.tensor_bytes} bytes, {bits:.3f} bits per parameter)"


def export(
    model: Model,
    plan: Plan,
    out: Path,
    *,
    sensitivity: Sensitivity | None = None,
    cache: RenderCache | None = None,
    polish: Polish | None = None,
    force: bool = False,
    shard_size: int = 5 * 10**9,
    threads: int | None = None,
    progress: Progress = silent,
) -> ExportReport:
    """Write ``model`` as ``plan`` says into the new folder ``out``, which appears complete or not at all.

    The same model, plan and ``shard_size`` give the same bytes, for any number of threads, and whether or not a run
    before was killed: what it had written by then is used.

    Parameters
    ----------
    sensitivity
        Needed only if the plan has a scheme whose activation scale is calibrated (``NVFP4``, ``FP8_STATIC``). With it,
        the folder of a plan for an FP8 KV cache gets scales for keys and values.
    cache
        Renderings of an earlier stage; what it lacks is rendered again where the preset needs no statistics.
    polish
        What is known of a polish, for the manifest; if it was accepted, ``cache`` holds its renderings.
    force
        Whether an existing model folder at ``out`` may be replaced.
    shard_size
        Bytes of tensors per file.

    Raises
    ------
    StageFileError
        The plan or the sensitivity belongs to another model, or the plan has a unit in a scheme it cannot take.
    RefusedError
        ``out`` exists, is locked or does not fit on the disk; the plan needs a sensitivity, or renderings that only a
        probe can make, and there are none.
    NumericError
        A weight to be quantized has a NaN or an infinity.
    """
    planned = {unit.name for unit in plan.units}
    model = model.with_units(unit for unit in model.kept_units if unit.name in planned)
    _check(model, plan)
    scheme_of = {unit.name: unit.scheme for unit in plan.units}
    input_scales = _input_scales(model, scheme_of, sensitivity)
    _check_renderings(model, scheme_of, plan, cache)
    of_cache = cache_scales(model, plan, sensitivity)
    layout = shards.lay_out(_entries(model, scheme_of, of_cache), shard_size)
    documents = {
        config.FILE: config.config_json(model, plan, CACHE_SCHEME if of_cache else None),
        shards.INDEX: shards.index(layout),
    }
    nbytes = sum(shard.nbytes for shard in layout) + sum(map(len, documents.values())) + copy.nbytes(model.path)
    journal = Journal(_key(model, plan, layout, input_scales | of_cache, polish))
    with publishing(Path(out), source=model.path, nbytes=nbytes, force=force, keep=journal.matches) as folder:
        records: list[LinearRecord] = []
        written_before = journal.open(folder)
        with shards.ShardWriter(folder, layout) as writer:
            for name in model.passthrough:
                if name in written_before:
                    writer.skip(name)
                else:
                    copy.copy_tensor(model, model.tensors[name], writer, name)
                    _note(journal, writer, name)
            for done, unit in enumerate(model.units):
                progress(Event("export", done, len(model.units), unit.name))
                scheme = scheme_of[unit.name]
                if unit.name in written_before:
                    _skip(writer, unit, scheme)
                    records += written_before[unit.name]
                    continue
                fresh = []
                if _is_copied(unit, scheme):
                    for linear in unit.linears:
                        copy.copy_tensor(model, linear.weight, writer, f"{linear.name}.weight")
                        fresh.append(LinearRecord(linear.name, scheme, linear.weight.nbytes, 0.0))
                else:
                    for name, parts, error in _render(model, unit, scheme, plan, input_scales, cache, threads):
                        for suffix, data in parts.items():
                            writer.write(f"{name}.{suffix}", data)
                        fresh.append(LinearRecord(name, scheme, sum(data.nbytes for data in parts.values()), error))
                records += fresh
                _note(journal, writer, unit.name, fresh)
            for name, scale in of_cache.items():
                writer.write(name, np.array([scale], "<f4"))
        journal.close()
        for name, document in documents.items():
            (folder / name).write_bytes(document)
        copy.copy_other_files(model.path, folder)
        total = sum(entry.nbytes for shard in layout for entry in shard.entries)
        kept = tuple(KeptRecord(name, model.tensors[name].nbytes, reason) for name, reason in model.reasons.items())
        written = Manifest(
            plan, tuple(records), tensor_bytes=total, parameters=model.parameters, kept=kept, polish=polish
        )
        manifest.write(folder / manifest.FILE, written)
        write_checksums(folder, writer.sums)
    progress(Event("export", len(model.units), len(model.units)))
    return ExportReport(Path(out), written)


def _key(
    model: Model,
    plan: Plan,
    layout: tuple[shards.Shard, ...],
    input_scales: dict[str, float],
    polish: Polish | None,
) -> str:
    """Of all that the bytes of the tensors depend on."""
    is_polished = polish is not None and polish.accepted
    parts = [model.fingerprint, plan.fingerprint, repr(sorted(input_scales.items())), repr(is_polished)]
    return fingerprint([*(part.encode() for part in parts), *(shards.header(shard.entries) for shard in layout)])


def _skip(writer: shards.ShardWriter, unit: Unit, scheme: str) -> None:
    for linear in unit.linears:
        for suffix in schemes.expected(scheme, linear.rows, linear.columns):
            writer.skip(f"{linear.name}.{suffix}")


def _note(journal: Journal, writer: shards.ShardWriter, name: str, records: Sequence[LinearRecord] = ()) -> None:
    """Note that ``name`` was written, and now and then have the disk take all of it."""
    journal.add(name, records)
    if writer.unsynced >= _SYNC_BYTES:
        writer.sync()
        journal.commit()


def _check(model: Model, plan: Plan) -> None:
    """Whether ``plan`` is a plan for ``model`` that can be carried out."""
    if plan.model != model.fingerprint:
        raise StageFileError(
            f"was made for the model {plan.model}, this is {model.fingerprint}",
            where="plan",
            hint="plan again for this model",
        )
    planned = {unit.name: unit.linears for unit in plan.units}
    present = {unit.name: tuple(linear.name for linear in unit.linears) for unit in model.units}
    if planned != present or len(plan.units) != len(model.units):
        wrong = sorted(planned.items() ^ present.items()) or [("", ())]
        raise StageFileError(
            "its units are not those of the model", where=f"plan, unit {wrong[0][0]!r}", hint="plan again"
        )
    scheme_of = {unit.name: get_scheme(unit.scheme) for unit in plan.units}
    for unit in model.units:
        for linear in unit.linears:
            reason = why_not(scheme_of[unit.name], linear.rows, linear.columns)
            if reason is not None:
                raise StageFileError(
                    f"{scheme_of[unit.name].name} is not possible: {reason}", where=f"plan, {linear.name}"
                )


def _is_probed(unit: Unit, plan: Plan) -> bool:
    """Whether a probe sees its inputs: not of what was pinned outside of the layers."""
    return unit.layer != NO_LAYER or any(each.name == unit.name and each.price is not None for each in plan.units)


def _check_renderings(model: Model, scheme_of: dict[str, str], plan: Plan, cache: RenderCache | None) -> None:
    """Whether what only the statistics of a probe could make is in ``cache``."""
    for unit in model.units:
        if not _is_probed(unit, plan):
            continue
        format = get_scheme(scheme_of[unit.name]).weight_format
        if cache.lacks(unit, format) if cache is not None else needs_grams(plan.preset, format):
            raise RefusedError(
                f"its rendering in {format} by preset {plan.preset!r} is not "
                + ("at hand without a work folder" if cache is None else f"in {cache.folder}"),
                where=unit.name,
                hint="give the work folder of the probe that the plan was made with (--work-dir), or probe again",
            )


def _input_scales(model: Model, scheme_of: dict[str, str], sensitivity: Sensitivity | None) -> dict[str, float]:
    """Scale of the inputs of each unit whose scheme stores one: siblings see the same input."""
    units = [unit for unit in model.units if get_scheme(scheme_of[unit.name]).input_scale]
    if not units:
        return {}
    if sensitivity is None:
        raise RefusedError(
            f"{scheme_of[units[0].name]} stores the range of the inputs, which only a sensitivity knows",
            where=units[0].name,
            hint="give the sensitivity that probe made (--sensitivity), or plan without this scheme",
        )
    if sensitivity.model != model.fingerprint:
        raise StageFileError(
            f"was made for the model {sensitivity.model}, this is {model.fingerprint}",
            where="sensitivity",
            hint="probe this model",
        )
    seen = {linear.name: linear.input_amax for unit in sensitivity.units for linear in unit.linears}
    missing = [linear.name for unit in units for linear in unit.linears if linear.name not in seen]
    if missing:
        raise StageFileError("has no statistics of this Linear", where=f"sensitivity, {missing[0]}", hint="probe again")
    chosen = {unit.name: unit.input_global_scale for unit in sensitivity.units}
    found = {}
    for unit in units:
        scheme = get_scheme(scheme_of[unit.name])
        amax = max(seen[linear.name] for linear in unit.linears)
        try:
            scale = static_scale(scheme.activations, amax, chosen.get(unit.name))
        except NumericError as cause:
            raise StageFileError(str(cause), where=f"sensitivity, {unit.name}") from cause
        if scale is None or not (math.isfinite(scale) and scale > 0):
            raise StageFileError(
                f"{scheme.input_scale} is {scale}, expected a positive number",
                where=f"sensitivity, {unit.name}",
                hint="the sensitivity is damaged: probe again",
            )
        found[unit.name] = scale
    return found


def _entries(model: Model, scheme_of: dict[str, str], of_cache: Iterable[str]) -> Iterator[shards.Entry]:
    """Every tensor of the folder: those of the units as their schemes store them, the others as they are, new ones."""
    names = set(model.passthrough)
    for name in of_cache:
        yield shards.Entry(name, "F32", (1,), 4)
    for name in model.passthrough:
        tensor = model.tensors[name]
        yield shards.Entry(name, tensor.dtype, tensor.shape, tensor.nbytes)
    for unit in model.units:
        for linear in unit.linears:
            for suffix, (dtype, shape) in schemes.expected(scheme_of[unit.name], linear.rows, linear.columns).items():
                name = f"{linear.name}.{suffix}"
                if name in names:
                    raise ModelError("the source has a tensor of the name that a quantized one takes", where=name)
                yield shards.Entry(name, dtype, shape, schemes.nbytes(dtype, shape))


def _is_copied(unit: Unit, scheme: str) -> bool:
    """Whether the weights are stored as they are to be."""
    return scheme == BF16 and all(linear.weight.dtype == "BF16" for linear in unit.linears)


def _render(
    model: Model,
    unit: Unit,
    scheme: str,
    plan: Plan,
    input_scales: dict[str, float],
    cache: RenderCache | None,
    threads: int | None,
) -> Iterator[tuple[str, dict[str, Array], float]]:
    """For each Linear of ``unit``: its name, suffix -> stored array, and the sum of squared errors."""
    weight_format, preset = get_scheme(scheme).weight_format, plan.preset
    if not _is_probed(unit, plan):
        preset, cache = DEFAULT_PRESET if preset_needs_gram(preset) else preset, None
    rendering = render_cached(model, unit, weight_format, preset=preset, cache=cache, threads=threads)
    for linear in unit.linears:
        parts = schemes.tensors(scheme, rendering.quantized[linear.name], input_scales.get(unit.name))
        yield linear.name, {suffix: data for suffix, (_, data) in parts.items()}, rendering.squared_error[linear.name]
