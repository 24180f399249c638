"""`Polish`: what solving a plan's units once more has changed, measured. Written by `polish`, read by `export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prismaquant.files import record

__all__ = ["FILE", "SCHEMA", "Polish", "PolishedUnit", "read", "write"]

SCHEMA = "prismaquant.polish/1"
FILE = "polish.json"


@dataclass(frozen=True, slots=True)
class PolishedUnit:
    """One unit, by the error of its outputs behind the quantized layers before it, on held-out windows.

    Attributes
    ----------
    scheme
        Name of its scheme.
    polished
        Whether the new rendering was taken: it was not if its error was not smaller.
    error_before, error_after
        Half the mean over tokens of ``e^T G e`` in nats, ``e`` the error of the outputs and ``G`` the Gram of the
        output gradients per token, with the rendering that was priced and with the new one.
    """

    name: str
    scheme: str
    polished: bool
    error_before: float
    error_after: float


@dataclass(frozen=True, slots=True)
class Polish:
    """Result of `polish`.

    Attributes
    ----------
    model
        Fingerprint of the model.
    plan
        `Plan.fingerprint` of the plan whose units were solved again.
    preset, calibration
        As in the plan.
    predicted_kl
        The plan's prediction, for the renderings that were priced.
    kl_before, kl_after
        KL divergence to the source in nats per token, measured on held-out windows with the inputs quantized as they
        are served, of the build before and after.
    standard_error_before, standard_error_after
        Of these, from their spread over the windows; ``None`` for one window.
    accepted
        Whether the new build is the better one; if it is not, the renderings that were priced are exported.
    units
        The quantized units that something was solved for, in the order of the model.
    """

    model: str
    plan: str
    preset: str
    calibration: str | None
    predicted_kl: float | None
    kl_before: float
    kl_after: float
    standard_error_before: float | None
    standard_error_after: float | None
    accepted: bool
    units: tuple[PolishedUnit, ...]

    def __repr__(self) -> str:
        outcome = "accepted" if self.accepted else "rejected"
        return f"Polish(KL {self.kl_before:.4g} -> {self.kl_after:.4g} nats/token, {outcome})"


def write(path: Path, polish: Polish) -> None:
    """Write the file."""
    record.write(path, polish, SCHEMA)


def read(path: Path) -> Polish:
    """Read the file; raises `StageFileError`."""
    return record.read(path, Polish, SCHEMA)
