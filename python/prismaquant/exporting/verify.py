"""`verify`: read a written folder back and hold every byte of it to the rules, and to the source."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from prismaquant.errors import StageFileError
from prismaquant.exporting.checks import rules, structure
from prismaquant.exporting.checks.folder import Folder, read_folder
from prismaquant.exporting.checks.foreign import check_foreign, method_of
from prismaquant.exporting.checks.linears import LinearVerifier
from prismaquant.exporting.checks.resolution import read_resolution
from prismaquant.exporting.checks.structure import Layout
from prismaquant.exporting.checksums import check_checksums
from prismaquant.exporting.report import Check, LinearCheck, VerifyReport
from prismaquant.files import manifest
from prismaquant.formats import BF16
from prismaquant.model import open_model
from prismaquant.progress import Event, Progress, silent

if TYPE_CHECKING:
    from prismaquant.files.manifest import Manifest
    from prismaquant.types import PathLike

__all__ = ["verify"]


def verify(
    checkpoint: PathLike,
    *,
    source: PathLike | None = None,
    tensor_parallel: int = 1,
    threads: int | None = None,
    progress: Progress = silent,
) -> VerifyReport:
    """Check the folder ``checkpoint`` without torch: files, configuration, tensors, and that it decodes to ``source``.

    A folder that breaks a rule, or cannot be read at all, gives a report with failures and no exception; see
    `VerifyReport.raise_for_failures`. A folder without ``quantization_config`` is checked as a plain model; of one in
    the form of another tool (ModelOpt, FP8 as DeepSeek stores it, auto-round, GPTQ) only files, shapes and scales.

    Parameters
    ----------
    checkpoint
        The written folder.
    source
        The model that it was made from. Without it, what needs the source is left out, and the report says so.
    tensor_parallel
        Devices that are to share the model: every Linear must be one that can be divided among them.
    threads
        How many threads decode; ``None``: all.

    Raises
    ------
    ModelError
        ``source`` cannot be opened, or a file was changed while it was read.
    """
    path = Path(checkpoint)
    original = None if source is None else open_model(source)
    folder, failures = read_folder(path)
    if folder is None:
        return VerifyReport.of(path, failures)
    if original is not None:
        failures += structure.check_config(folder.config, original.config)
    layout, broken = (
        structure.read_layout(folder.config, folder.tensors)
        if original is None
        else structure.read_layout(original.config, original.tensors)
    )
    failures += broken
    if layout is None:
        return VerifyReport.of(path, failures)
    is_ours = (path / manifest.FILE).exists()
    if not is_ours and (method := method_of(folder.config)):
        failures += check_foreign(folder, layout, method)
        return VerifyReport.of(path, failures)
    written, broken = _read_manifest(folder)
    failures += broken
    planned = () if written is None else (linear for unit in written.plan.units for linear in unit.linears)
    layout, schemes, broken = _resolve(folder, layout, planned, is_ours=is_ours)
    failures += broken
    if original is not None:
        linears_of_units = set(layout.linears)
        original = original.with_units(
            unit for unit in original.kept_units if linears_of_units.intersection(x.name for x in unit.linears)
        )

    linears: list[LinearCheck] = []
    verifier = LinearVerifier(
        folder, original, written, tensor_parallel=tensor_parallel, kv_heads=layout.kv_heads, threads=threads
    )
    for done, unit in enumerate(layout.units):
        progress(Event("verify", done, len(layout.units), unit.name))
        checked, broken = verifier.unit(unit, schemes)
        linears += checked
        failures += broken
    failures += rules.check_strays(folder, layout.linears)
    if original is not None:
        failures += rules.check_passthrough(folder, original, layout.linears)
        failures += rules.check_other_files(folder, original)
    if written is not None:
        failures += rules.check_manifest(folder, written, schemes, original)
    failures += check_checksums(path)
    progress(Event("verify", len(layout.units), len(layout.units)))
    return VerifyReport.of(path, failures, linears=linears, source_compared=original is not None)


def _resolve(
    folder: Folder, layout: Layout, planned: Iterable[str], *, is_ours: bool
) -> tuple[Layout, dict[str, str | None], list[Check]]:
    """All units, the scheme of each Linear by the configuration (``None``: none or several), and what is wrong with the
    names."""
    if folder.is_plain:
        return layout, dict.fromkeys(layout.linears, BF16), []
    resolution, failures = read_resolution(folder.config["quantization_config"], is_ours=is_ours)
    layout = structure.with_stored_units(layout, folder, resolution, planned)
    failures += structure.check_cache_scales(folder, layout)
    schemes: dict[str, str | None] = {}
    for unit in layout.units:
        for name in unit.linears:
            schemes[name], broken = structure.resolve_linear(resolution, name, is_ours=is_ours)
            failures += broken
        failures += structure.check_siblings(unit, schemes)
        failures += structure.check_fused_name(resolution, unit)
    failures += structure.check_bystanders(resolution, folder, layout)
    failures += structure.check_dead_targets(resolution, layout)
    return layout, schemes, failures


def _read_manifest(folder: Folder) -> tuple[Manifest | None, list[Check]]:
    path = folder.path / manifest.FILE
    if not path.exists():
        return None, []  # of another tool, or no quantized model at all; where it was removed, the sums say so
    try:
        return manifest.read(path), []
    except StageFileError as error:
        return None, [Check("manifest", manifest.FILE, error.message)]
