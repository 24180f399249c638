"""`Plan`: which scheme each unit gets; its JSON is the recipe. Written by `plan`, read by `export` and in C++."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from prismaquant.files import record
from prismaquant.files.fingerprint import fingerprint

__all__ = ["SCHEMA", "CacheShare", "Footprint", "Note", "Plan", "PlannedUnit", "read", "write"]

SCHEMA = "prismaquant.recipe/1"


@dataclass(frozen=True, slots=True)
class Note:
    """Something a person should know that is no error: ``unit`` stays BF16 because ...

    ``code`` is a short fixed word (``"columns-not-divisible"``, ...), ``text`` the sentence.
    """

    code: str
    unit: str
    text: str


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """One decision.

    Attributes
    ----------
    name
        Name of the unit.
    linears
        Names of its Linears.
    scheme
        Name of the scheme that all of them get.
    bytes
        Exact bytes of all stored tensors of the unit.
    price
        Expected KL divergence in nats per token; ``None`` where nothing was measured (a uniform plan).
    """

    name: str
    linears: tuple[str, ...]
    scheme: str
    bytes: record.Count
    price: float | None

    @property
    def layer(self) -> int | None:
        """Index of its layer in the decoder or a tower, the first number inside its name; ``None``: there is none."""
        return next((int(part) for part in self.name.split(".")[:-1] if part.isdecimal()), None)

    @property
    def is_bank(self) -> bool:
        """Whether it is a bank of experts, whose Linears have numbers behind its name."""
        return self.linears[0].startswith(f"{self.name}.") and ".".join(self.linears[0].split(".")[:-2]) == self.name


@dataclass(frozen=True, slots=True)
class CacheShare:
    """What ``layers`` decoder layers of one ``kind`` keep of the sequences, in ``bytes`` on one device.

    ``kind`` is ``"full"``, ``"sliding"`` (a window), ``"latent"`` (MLA) or ``"recurrent"`` (linear attention).
    """

    kind: str
    layers: record.Count
    bytes: record.Count


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one device holds and reads when the plan is served.

    Attributes
    ----------
    resident
        Bytes of all weights.
    read_per_token
        Bytes of weights that decoding one token of one sequence reads on all devices together; of experts as many as
        are expected.
    context, concurrency, kv
        Tokens of a sequence (0: not known), sequences at the same time, and how keys and values are kept.
    cache
        What the layers keep of them.
    activations
        Bytes that the engine needs beside, an estimate.
    tensor_parallel
        Devices that share the model.
    memory, bandwidth
        Bytes of one device, and what it reads per second; ``None``: any.
    left
        Bytes that are left of the share that the engine takes of it; negative if it does not fit.
    """

    resident: record.Count
    read_per_token: record.Count
    context: record.Count
    concurrency: record.Positive
    kv: str
    cache: tuple[CacheShare, ...]
    activations: record.Count
    tensor_parallel: record.Positive
    memory: record.Count | None = None
    bandwidth: record.Count | None = None
    left: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Result of `plan`.

    Attributes
    ----------
    model
        Fingerprint of the model.
    preset
        Solver preset that renders the weights.
    price
        Name of the price that ``predicted_kl`` sums, and that was minimised if there was a budget; ``None`` without
        a sensitivity.
    budget
        Bytes that the units were allowed to take; ``None`` for a uniform plan.
    parameters
        Weights of all units.
    bytes
        Everything stored for the units.
    predicted_kl
        Sum of the prices.
    standard_error
        Of ``predicted_kl``, from the spread of the prices over the windows that set them; ``None`` where it is not
        known.
    lower_bound
        Proven lower bound of that sum under the budget and the other limits (equal: the plan is optimal).
    units
        Decisions in the order of the model.
    calibration
        `Sensitivity.calibration` of the statistics that the preset solves with; ``None`` for data-free presets.
    notes
        Remarks.
    a16_share
        Share of the operations of all Linears that keep 16-bit activations although their format has its own.
    footprint
        What a device holds and reads; ``None`` in recipes of earlier releases.
    menu, pins, a16_limit
        What was chosen from: names of schemes, pins, and the largest ``a16_share`` (``None``: any).
    """

    model: str
    preset: str
    price: str | None
    budget: record.Count | None
    parameters: record.Positive
    bytes: record.Count
    predicted_kl: float | None
    lower_bound: float | None
    units: tuple[PlannedUnit, ...]
    calibration: str | None = None
    standard_error: float | None = None
    notes: tuple[Note, ...] = ()
    a16_share: float = 0.0
    footprint: Footprint | None = None
    menu: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()
    a16_limit: float | None = None

    @property
    def fingerprint(self) -> str:
        """Of what decides the bytes of the weights: model, solver, calibration and schemes; not of the prices."""
        parts = [self.model, self.preset, str(self.calibration)]
        for unit in self.units:
            parts += [unit.name, unit.scheme]
        return fingerprint([part.encode() for part in parts])

    @property
    def bpw(self) -> float:
        """Bits per weight: everything stored for the units over their weights."""
        return 8 * self.bytes / self.parameters

    def __repr__(self) -> str:
        counts = Counter(unit.scheme for unit in self.units)
        schemes = " ".join(f"{number} {scheme}" for scheme, number in counts.most_common())
        return f"Plan({self.bpw:.3f} bpw, {len(self.units)} units: {schemes})"


def write(path: Path, plan: Plan) -> None:
    """Write the recipe."""
    record.write(path, plan, SCHEMA)


def read(path: Path) -> Plan:
    """Read a recipe; raises `StageFileError` naming the place inside the document."""
    return record.read(path, Plan, SCHEMA)
