"""`Sensitivity`: how much each unit matters and what each scheme would cost it. Written by `probe`, read by `plan`.

One safetensors file: the document is in the metadata, the squared output gradients per row are the tensors. Sums are
stored, with the number of tokens to divide by.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from prismaquant.errors import StageFileError
from prismaquant.files import record

if TYPE_CHECKING:
    from prismaquant.types import Array

__all__ = ["SCHEMA", "Candidate", "LinearSensitivity", "Sensitivity", "UnitSensitivity", "read", "write"]

SCHEMA = "prismaquant.sensitivity/1"


@dataclass(frozen=True, slots=True)
class LinearSensitivity:
    """Statistics of one Linear of shape ``[rows, columns]``.

    Attributes
    ----------
    fisher_trace
        Sum over tokens, mean over probes, of ``|g|^2 |x|^2``, with ``x`` the input and ``g`` the output gradient of the
        Linear: the trace of the per-token Fisher diagonal of the weight, times ``Sensitivity.tokens``.
    input_amax
        Largest absolute input seen.
    """

    name: str
    rows: int
    columns: int
    fisher_trace: float
    input_amax: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """One scheme for one unit.

    Attributes
    ----------
    scheme
        Name of the scheme.
    bytes
        Exact bytes of all stored tensors of the unit under this scheme.
    squared_error
        Sum over the unit of ``(decoded - weight)^2``.
    prices
        Price name -> expected KL divergence in nats per token.
    """

    scheme: str
    bytes: int
    squared_error: float
    prices: dict[str, float]


@dataclass(frozen=True, slots=True)
class UnitSensitivity:
    """What was measured for one unit. A scheme that the shapes do not allow is missing from ``candidates``."""

    name: str
    linears: tuple[LinearSensitivity, ...]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Result of `probe`.

    Attributes
    ----------
    model
        Fingerprint of the model (``Model.fingerprint``).
    data
        Fingerprint of the calibration tokens.
    tokens, seq_len, probes, seed
        How much was measured: calibration tokens, tokens per window, gradient probes per window, random seed.
    preset
        Solver preset whose renderings were priced.
    prices
        Names of the prices that every candidate carries.
    fisher_rows
        Linear name -> float32 ``[rows]``: sum over tokens, mean over probes, of the squared output gradient. Not
        part of the document: stored as tensors.
    """

    model: str
    data: str
    tokens: int
    seq_len: int
    probes: int
    seed: int
    preset: str
    prices: tuple[str, ...]
    units: tuple[UnitSensitivity, ...]
    fisher_rows: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"Sensitivity({len(self.units)} units, {self.tokens} tokens, prices {', '.join(self.prices)})"


@dataclass(frozen=True, slots=True)
class _Document:
    """The part of `Sensitivity` that is JSON."""

    model: str
    data: str
    tokens: int
    seq_len: int
    probes: int
    seed: int
    preset: str
    prices: tuple[str, ...]
    units: tuple[UnitSensitivity, ...]


def write(path: Path, sensitivity: Sensitivity) -> None:
    """Write the file so that it is either the old one or the whole new one."""
    from safetensors.numpy import save

    fields = {name: getattr(sensitivity, name) for name in _Document.__slots__}
    document = record.encode(_Document(**fields), SCHEMA).decode()
    record.write_atomic(path, save(dict(sensitivity.fisher_rows), metadata={"prismaquant": document}))


def read(path: Path) -> Sensitivity:
    """Read the file.

    Raises
    ------
    StageFileError
        Missing, truncated, or not a sensitivity file of a version this release knows.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            document = (file.metadata() or {}).get("prismaquant", "null")
            rows = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as cause:
        raise StageFileError(f"is not a sensitivity file ({cause})", where=str(path)) from cause
    body = record.decode(document.encode(), _Document, SCHEMA, str(path))
    fields = {name: getattr(body, name) for name in _Document.__slots__}
    return Sensitivity(**fields, fisher_rows=rows)
