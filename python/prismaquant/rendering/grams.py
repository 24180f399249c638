"""`GramStore`: the Grams of output gradients, kept on disk for the polish; those of the inputs only on request.

One safetensors file per unit. A file counts only if it was made from the same model and calibration, with the shapes of
the unit; any other file is treated as absent, and written again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from prismaquant.errors import StageFileError
from prismaquant.files import record

if TYPE_CHECKING:
    from prismaquant.model import Unit
    from prismaquant.rendering.render import Grams
    from prismaquant.types import Array

__all__ = ["BLOCK_ROWS", "SCHEMA", "WHOLE_ROWS", "GramStore", "OutputGram", "output_gram_bytes"]

SCHEMA = "prismaquant.grams/1"

#: Up to so many rows the Gram of the output gradients is kept whole, above only its diagonal blocks of `BLOCK_ROWS`.
WHOLE_ROWS = 4096
BLOCK_ROWS = 128


@dataclass(frozen=True, slots=True)
class OutputGram:
    """Of the output gradients ``g`` of one Linear ``[rows, columns]``.

    Attributes
    ----------
    sums
        float32 ``[rows, b]``: the diagonal blocks, of ``b`` rows, of the sum of ``g g^T``.
    tokens
        How many gradients were summed.
    """

    sums: Array
    tokens: int

    def __repr__(self) -> str:
        return f"OutputGram({list(self.sums.shape)}, {self.tokens} tokens)"


@dataclass(frozen=True, slots=True)
class _Document:
    """The metadata of a file; the tensors are ``<Linear>.output_gram`` and, if they are kept, ``<Linear>.gram``."""

    model: str
    calibration: str
    unit: str
    tokens: dict[str, record.Count]
    output_tokens: dict[str, record.Count]


class GramStore:
    """The Grams of one model on one set of calibration data.

    Parameters
    ----------
    folder
        Where the files are; other models and calibrations may use the same folder.
    model
        Fingerprint of the model.
    calibration
        `Sensitivity.calibration`.
    """

    def __init__(self, folder: Path, model: str, calibration: str) -> None:
        self.model, self.calibration = model, calibration
        self.folder = Path(folder) / hashlib.sha256(f"{model} {calibration}".encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"GramStore({str(self.folder)!r})"

    def path(self, unit: str) -> Path:
        """The file for the unit called ``unit``."""
        return self.folder / f"{unit}.safetensors"

    def put(self, unit: Unit, grams: Mapping[str, Grams], *, inputs: bool) -> None:
        """Keep what is known of the Linears of ``unit``; a reader sees the whole file or none.

        Parameters
        ----------
        inputs
            Whether the Grams of the inputs are kept, too.
        """
        known = {linear.name: grams[linear.name] for linear in unit.linears}
        arrays = {f"{name}.output_gram": np.ascontiguousarray(each.output_gram) for name, each in known.items()}
        if inputs:
            arrays |= {f"{name}.gram": np.ascontiguousarray(each.gram) for name, each in known.items()}
        document = _Document(
            self.model,
            self.calibration,
            unit.name,
            {name: each.tokens for name, each in known.items()},
            {name: each.output_tokens for name, each in known.items()},
        )
        metadata = {"prismaquant": record.encode(document, SCHEMA).decode()}
        record.write_atomic(self.path(unit.name), save(arrays, metadata=metadata))

    def has(self, unit: Unit, *, inputs: bool) -> bool:
        """Whether `put` was called for ``unit``, with at least as much to keep."""
        try:
            with safe_open(self.path(unit.name), framework="numpy") as file:
                names = set(file.keys())
        except (OSError, SafetensorError):
            return False
        suffixes = ("output_gram", "gram") if inputs else ("output_gram",)
        return all(f"{linear.name}.{suffix}" in names for linear in unit.linears for suffix in suffixes)

    def get(self, unit: Unit) -> dict[str, OutputGram] | None:
        """Name of each Linear of ``unit`` -> Gram of its output gradients; ``None`` if they were not kept."""
        path = self.path(unit.name)
        try:
            with safe_open(path, framework="numpy") as file:
                text = (file.metadata() or {}).get("prismaquant", "null")
                sums = {linear.name: file.get_tensor(f"{linear.name}.output_gram") for linear in unit.linears}
            document = record.decode(text.encode(), _Document, SCHEMA, str(path))
        except (OSError, SafetensorError, StageFileError):
            return None
        if (document.model, document.calibration, document.unit) != (self.model, self.calibration, unit.name):
            return None
        if any(len(sums[linear.name]) != linear.rows for linear in unit.linears):
            return None
        return {name: OutputGram(gram, document.output_tokens.get(name, 0)) for name, gram in sums.items()}


def output_gram_bytes(rows: int) -> int:
    """Bytes of the Gram of ``rows`` output gradients as it is kept."""
    return 4 * rows * (rows if rows <= WHOLE_ROWS else BLOCK_ROWS)
