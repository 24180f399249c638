"""`RenderCache`: renderings kept on disk between stages and runs, one safetensors file per unit and format.

A file counts only if all of it is as expected: the model, preset, format and rendering version it was made with, the
shapes of the weights, and a checksum of the stored bytes. Any other file is treated as absent, and written again.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from prismaquant.codec import Quantized
from prismaquant.errors import ArgumentError, StageFileError
from prismaquant.files import record
from prismaquant.formats import BF16, get_scheme
from prismaquant.rendering.render import Grams, Rendering, needs_grams, render
from prismaquant.solver import preset_needs_gram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prismaquant.files.plan import Plan
    from prismaquant.model import Model, Unit
    from prismaquant.types import Array

__all__ = ["SCHEMA", "VERSION", "RenderCache", "polished_cache", "render_cached"]

SCHEMA = "prismaquant.rendering/1"

#: Raise it when the bytes of any rendering change (solver, codec, global scale): older files then count as absent.
VERSION = 3


@dataclass(frozen=True, slots=True)
class _Linear:
    name: str
    shape: tuple[int, int]
    global_scale: float | None
    squared_error: float
    checksum: int


@dataclass(frozen=True, slots=True)
class _Document:
    """The metadata of a file; the tensors are ``<Linear>.codes``, ``.scales`` and ``.extra``."""

    version: int
    model: str
    preset: str
    calibration: str | None
    format: str
    unit: str
    linears: tuple[_Linear, ...]


class RenderCache:
    """Renderings of one model under one preset, made with one set of calibration data where the preset uses any.

    Parameters
    ----------
    folder
        Where the files are; other models and presets may use the same folder.
    model
        Fingerprint of the model.
    preset
        Name of the solver preset.
    calibration
        What the statistics were made with (`Sensitivity.calibration`); without meaning for data-free presets.
    """

    def __init__(self, folder: Path, model: str, preset: str, calibration: str | None = None) -> None:
        self.model = model
        self.preset = preset
        self.calibration = calibration if preset_needs_gram(preset) else None
        key = hashlib.sha256(f"{model} {preset} {self.calibration}".encode()).hexdigest()[:16]
        self.folder = Path(folder) / key

    def __repr__(self) -> str:
        return f"RenderCache({str(self.folder)!r}, preset {self.preset})"

    def path(self, unit: str, format: str) -> Path:
        """The file for the unit called ``unit`` in ``format``."""
        return self.folder / f"{unit}.{format}.safetensors"

    def lacks(self, unit: Unit, format: str) -> bool:
        """Whether only the statistics that a probe gathers could make this rendering."""
        return needs_grams(self.preset, format) and not self.path(unit.name, format).exists()

    def get(self, unit: Unit, format: str) -> Rendering | None:
        """What `put` was given, or ``None``."""
        path = self.path(unit.name, format)
        try:
            with safe_open(path, framework="numpy") as file:
                text = (file.metadata() or {}).get("prismaquant", "null")
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            document = record.decode(text.encode(), _Document, SCHEMA, str(path))
        except (OSError, SafetensorError, StageFileError):
            return None
        shapes = tuple((linear.name, (linear.rows, linear.columns)) for linear in unit.linears)
        made_with = (document.version, document.model, document.preset, document.calibration)
        if made_with != (VERSION, self.model, self.preset, self.calibration):
            return None
        if (document.format, document.unit) != (format, unit.name):
            return None
        if tuple((linear.name, linear.shape) for linear in document.linears) != shapes:
            return None
        if any(_checksum(arrays, linear.name) != linear.checksum for linear in document.linears):
            return None
        return Rendering(
            unit=unit.name,
            format=format,
            quantized={
                linear.name: Quantized(
                    format=format,
                    shape=linear.shape,
                    codes=arrays[f"{linear.name}.codes"],
                    scales=arrays.get(f"{linear.name}.scales"),
                    global_scale=linear.global_scale,
                    extra=arrays.get(f"{linear.name}.extra"),
                )
                for linear in document.linears
            },
            squared_error={linear.name: linear.squared_error for linear in document.linears},
        )

    def put(self, rendering: Rendering) -> None:
        """Keep ``rendering``; a reader sees the whole file or none."""
        arrays: dict[str, Array] = {}
        for name, quantized in rendering.quantized.items():
            arrays[f"{name}.codes"] = np.ascontiguousarray(quantized.codes)
            if quantized.scales is not None:
                arrays[f"{name}.scales"] = np.ascontiguousarray(quantized.scales)
            if quantized.extra is not None:
                arrays[f"{name}.extra"] = np.ascontiguousarray(quantized.extra)
        linears = tuple(
            _Linear(
                name,
                quantized.matrix_shape,
                None if quantized.global_scale is None else float(quantized.global_scale),
                rendering.squared_error[name],
                _checksum(arrays, name),
            )
            for name, quantized in rendering.quantized.items()
        )
        made_with = (VERSION, self.model, self.preset, self.calibration)
        document = _Document(*made_with, rendering.format, rendering.unit, linears)
        metadata = {"prismaquant": record.encode(document, SCHEMA).decode()}
        record.write_atomic(self.path(rendering.unit, rendering.format), save(arrays, metadata=metadata))


def polished_cache(folder: Path, plan: Plan) -> RenderCache:
    """The renderings in ``folder`` that the polish of ``plan`` has kept."""
    return RenderCache(folder, plan.model, plan.preset, plan.fingerprint)


def render_cached(
    model: Model,
    unit: Unit,
    format: str,
    *,
    preset: str,
    cache: RenderCache | None,
    grams: Mapping[str, Grams] | None = None,
    threads: int | None = None,
) -> Rendering:
    """`render`, unless ``cache`` has the result; the result is put there.

    Weights in 16 bits are not kept: rounding is quicker than reading them back, and they are as large as the model.

    Raises
    ------
    ArgumentError
        If ``cache`` belongs to another model or preset.
    """
    if cache is not None and (cache.model, cache.preset) != (model.fingerprint, preset):
        raise ArgumentError(f"holds {cache.preset} renderings of {cache.model}", where=repr(cache))
    if cache is None or format == get_scheme(BF16).weight_format:
        return render(model, unit, format, preset=preset, grams=grams, threads=threads)
    found = cache.get(unit, format)
    if found is None:
        found = render(model, unit, format, preset=preset, grams=grams, threads=threads)
        cache.put(found)
    return found


def _checksum(arrays: dict[str, Array], name: str) -> int:
    """CRC-32 over dtype, shape and bytes of what is stored for the Linear ``name``."""
    total = 0
    for part in ("codes", "scales", "extra"):
        array = arrays.get(f"{name}.{part}")
        if array is not None:
            total = zlib.crc32(f"{part} {array.dtype.str} {array.shape}".encode(), total)
            total = zlib.crc32(array.reshape(-1).view(np.uint8).data, total)
    return total
