"""`Sensitivity`: how much each unit matters and what each scheme would cost it. Written by `probe`, read by `plan`.

One safetensors file: the document is in the metadata, the squared output gradients per row are the tensors. Sums are
stored, with the number of tokens to divide by.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from prismaquant.errors import StageFileError
from prismaquant.files import record
from prismaquant.files.fingerprint import fingerprint

if TYPE_CHECKING:
    from prismaquant.types import Array

__all__ = [
    "SCHEMA",
    "Candidate",
    "Document",
    "LinearSensitivity",
    "Sensitivity",
    "UnitSensitivity",
    "calibration_of",
    "read",
    "write",
]

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
    rows: record.Count
    columns: record.Count
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
    bytes: record.Count
    squared_error: float
    prices: dict[str, float]


@dataclass(frozen=True, slots=True)
class UnitSensitivity:
    """What was measured for one unit. A scheme that the shapes do not allow is missing from ``candidates``."""

    name: str
    linears: tuple[LinearSensitivity, ...]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """The part of `Sensitivity` that is JSON; its attributes are explained there."""

    model: str
    data: str
    tokens: record.Positive
    seq_len: record.Positive
    probes: record.Positive
    seed: int
    preset: str
    prices: tuple[str, ...]
    units: tuple[UnitSensitivity, ...]

    @property
    def calibration(self) -> str:
        """Fingerprint of what the statistics depend on beside the model."""
        return calibration_of(self.data, self.probes, self.seed)


def calibration_of(data: str, probes: int, seed: int) -> str:
    """`Sensitivity.calibration` of a probe with these settings."""
    return fingerprint([data.encode(), str(probes).encode(), str(seed).encode()])


@dataclass(frozen=True, slots=True)
class Sensitivity(Document):
    """Result of `probe`.

    Attributes
    ----------
    model
        Fingerprint of the model (``Model.fingerprint``).
    data
        Fingerprint of the calibration tokens.
    tokens
        Calibration tokens.
    seq_len
        Tokens per window.
    probes
        Gradient probes per window.
    seed
        Random seed of the probes.
    preset
        Solver preset whose renderings were priced.
    prices
        Names of the prices that every candidate carries.
    units
        What was measured, in the order of the model.
    fisher_rows
        Linear name -> float32 ``[rows]``: sum over tokens, mean over probes, of the squared output gradient. Not
        part of the document: stored as tensors.
    """

    fisher_rows: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"Sensitivity({len(self.units)} units, {self.tokens} tokens, prices {', '.join(self.prices)})"


def write(path: Path, sensitivity: Sensitivity) -> None:
    """Write the file so that it is either the old one or the whole new one.

    Raises
    ------
    NumericError
        A number is NaN or infinite; names the place.
    Error
        The operating system refused.
    """
    from safetensors.numpy import save

    document = record.encode(Document(**_fields(sensitivity)), SCHEMA).decode()
    record.write_atomic(path, save(dict(sensitivity.fisher_rows), metadata={"prismaquant": document}))


def read(path: Path) -> Sensitivity:
    """Read the file.

    Raises
    ------
    StageFileError
        Missing, truncated, or not a sensitivity file of a version this release knows; a tensor that does not belong
        to the document. Names the place.
    """
    if not path.is_file():
        raise StageFileError("is a directory" if path.is_dir() else "no such file", where=str(path))
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("prismaquant", "null")
            document = record.decode(text.encode(), Document, SCHEMA, str(path))
            _check_tensors(document, {name: file.get_slice(name) for name in file.keys()}, path)  # noqa: SIM118
            rows = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as cause:
        raise StageFileError(f"is not a sensitivity file ({cause})", where=str(path)) from cause
    return Sensitivity(**_fields(document), fisher_rows=rows)


def _fields(document: Document) -> dict[str, Any]:
    return {each.name: getattr(document, each.name) for each in fields(Document)}


def _check_tensors(document: Document, slices: dict[str, Any], path: Path) -> None:
    """Every Linear has its rows, of the right type and length, and there is nothing else."""
    expected = {linear.name: ["F32", [linear.rows]] for unit in document.units for linear in unit.linears}
    found = {name: [part.get_dtype(), part.get_shape()] for name, part in slices.items()}
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise StageFileError(
                f"tensor {name!r} is {found.get(name, 'missing')}, expected {expected.get(name, 'none of this name')}",
                where=str(path),
                hint="the file is damaged: probe again",
            )
