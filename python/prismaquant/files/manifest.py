"""`Manifest`: ``prismaquant.json`` in the exported folder, what was written and how it can be checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prismaquant.files import record
from prismaquant.files.plan import Plan
from prismaquant.files.polish import Polish

__all__ = ["FILE", "SCHEMA", "KeptRecord", "LinearRecord", "Manifest", "read", "write"]

SCHEMA = "prismaquant.manifest/1"
FILE = "prismaquant.json"


@dataclass(frozen=True, slots=True)
class LinearRecord:
    """What was written for one Linear: its scheme, the bytes of its tensors, and the sum of squared errors."""

    name: str
    scheme: str
    bytes: record.Count
    squared_error: float


@dataclass(frozen=True, slots=True)
class KeptRecord:
    """A tensor of the source that was copied, and why it is no part of a Linear that could be quantized."""

    name: str
    bytes: record.Count
    reason: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Result of `export`, without the path.

    Attributes
    ----------
    plan
        The recipe that was carried out.
    linears
        One record per Linear of the plan.
    tensor_bytes
        Bytes of all tensors of the folder, passed-through ones included.
    parameters
        Parameters of the source model.
    kept
        One record per tensor that was copied.
    polish
        What solving the units once more has changed, where it was done; ``accepted`` says whether its renderings are
        the ones that were written.
    """

    plan: Plan
    linears: tuple[LinearRecord, ...]
    tensor_bytes: record.Count
    parameters: record.Positive
    kept: tuple[KeptRecord, ...] = ()
    polish: Polish | None = None

    @property
    def bits_per_parameter(self) -> float:
        """Bits of all stored tensors over all parameters of the source."""
        return 8 * self.tensor_bytes / self.parameters


def write(path: Path, manifest: Manifest) -> None:
    """Write the file."""
    record.write(path, manifest, SCHEMA)


def read(path: Path) -> Manifest:
    """Read the file; raises `StageFileError`."""
    return record.read(path, Manifest, SCHEMA)
