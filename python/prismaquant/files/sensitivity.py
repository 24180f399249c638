"""`Sensitivity`: how much each unit matters and what each scheme would cost it. Written by `probe`, read by `plan`.

One safetensors file: the document is in the metadata, the tensors are the squared output gradients per row, and the
prices window by window. Sums are stored, with the number of tokens to divide by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
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
    "CacheRange",
    "Candidate",
    "Document",
    "LinearSensitivity",
    "Sensitivity",
    "UnitSensitivity",
    "calibration_of",
    "document",
    "least_tokens",
    "price_sums_name",
    "read",
    "write",
]

SCHEMA = "prismaquant.sensitivity/1"

#: What the names of the tensors of `Sensitivity.price_sums` begin with.
_PRICES = "prices/"


@dataclass(frozen=True, slots=True)
class LinearSensitivity:
    """Statistics of one Linear of shape ``[rows, columns]``.

    Attributes
    ----------
    fisher_trace
        Sum over tokens, mean over probes, of ``|g|^2 |x|^2``, with ``x`` the input and ``g`` the output gradient of the
        Linear: the trace of the per-token Fisher diagonal of the weight, times ``Sensitivity.tokens``, or
        ``tower_tokens``.
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
    """What was measured for one unit. A scheme that the shapes do not allow is missing from ``candidates``.

    Attributes
    ----------
    input_global_scale
        Divisor of the inputs under NVFP4, chosen on windows of its own; ``None``: it was not priced.
    coverage
        Tokens that each expert of a bank saw, of those of the statistics; empty for other units.
    tower
        Whether it lies in a tower: it was measured on samples with images or audio, not on text.
    """

    name: str
    linears: tuple[LinearSensitivity, ...]
    candidates: tuple[Candidate, ...]
    input_global_scale: float | None = None
    coverage: tuple[record.Count, ...] = ()
    tower: bool = False

    @property
    def input_amax(self) -> float:
        """Largest absolute input of its Linears."""
        return max(linear.input_amax for linear in self.linears)

    @property
    def pooled(self) -> tuple[int, ...]:
        """The experts that saw too few tokens to be solved for with statistics of their own."""
        least = least_tokens(self.linears[0].columns) if self.coverage else 0
        return tuple(expert for expert, tokens in enumerate(self.coverage) if tokens < least)


@dataclass(frozen=True, slots=True)
class CacheRange:
    """Largest keys and values of one attention.

    Attributes
    ----------
    name
        Of the module, as folders call it.
    layer
        Index of its decoder layer.
    key_amax, value_amax
        Largest magnitudes, of keys with their rotary embedding.
    """

    name: str
    layer: record.Count
    key_amax: float
    value_amax: float


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
    price_data: str | None = None
    price_tokens: record.Count = 0
    price_probes: record.Count = 0
    calibrate_all_experts: bool = False
    caches: tuple[CacheRange, ...] = ()
    tower_data: str | None = None
    tower_tokens: record.Count = 0
    tower_price_data: str | None = None
    tower_price_tokens: record.Count = 0
    tower_price_samples: record.Count = 0

    @property
    def calibration(self) -> str:
        """Fingerprint of what the statistics depend on beside the model."""
        return calibration_of(self.data, self.probes, self.seed, self.calibrate_all_experts, self.tower_data)


def least_tokens(columns: int) -> int:
    """So many tokens must an expert have seen to be solved for without the statistics of the others."""
    return max(1, columns // 8)


def calibration_of(
    data: str, probes: int, seed: int, calibrate_all_experts: bool = False, tower_data: str | None = None
) -> str:
    """`Sensitivity.calibration` of a probe with these settings."""
    more = [b"calibrate_all_experts"] if calibrate_all_experts else []
    more += [b"tower_data", tower_data.encode()] if tower_data is not None else []
    return fingerprint([data.encode(), str(probes).encode(), str(seed).encode(), *more])


@dataclass(frozen=True, slots=True)
class Sensitivity(Document):
    """Result of `probe`.

    Attributes
    ----------
    model
        Fingerprint of the model (``Model.fingerprint``).
    data
        Fingerprint of the tokens of the statistics, which the weights are solved for.
    tokens
        Their number.
    seq_len
        Tokens per window.
    probes
        Gradient probes per window of theirs.
    seed
        Random seed of the probes.
    preset
        Solver preset whose renderings were priced.
    prices
        Names of the prices that every candidate carries.
    units
        What was measured, in the order of the model.
    price_data
        Fingerprint of the tokens that set the prices; none of them is among those of the statistics, but in a preview,
        where they are the same. ``None``: they are those.
    price_tokens
        Their number.
    price_probes
        Gradient probes per window of theirs.
    calibrate_all_experts
        Whether experts were solved for the inputs of all tokens, not only of those that were routed to them.
    caches
        Range of the keys and values of each attention, over the tokens of statistics and prices.
    tower_data, tower_price_data
        As ``data`` and ``price_data``, of the samples that units of towers were measured on; ``None``: there were none.
    tower_tokens, tower_price_tokens
        Tokens of theirs whose predictions count: those behind which no image, video or audio comes.
    tower_price_samples
        How many samples set the prices of these units.
    fisher_rows
        Linear name -> float32 ``[rows]``: sum over tokens, mean over probes, of the squared output gradient. Not
        part of the document: stored as tensors.
    price_sums
        `price_sums_name` of unit and price -> float32 ``[candidates, windows]``: the price in nats, summed over the
        tokens of each window, or of each sample. Stored as tensors, too.
    """

    fisher_rows: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)
    price_sums: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)

    @property
    def outline(self) -> Sensitivity:
        """How it was measured, without what was."""
        return replace(self, units=(), caches=(), fisher_rows={}, price_sums={})

    def standard_error(self, schemes: Mapping[str, str], price: str) -> float | None:
        """Of the sum of the prices, in nats per token, of the units in ``schemes`` (unit name -> scheme).

        From the spread over the windows, whose prices of different units go up and down together; those of samples do
        so among themselves. ``None`` for one window, or where no sums were kept.
        """
        totals: dict[bool, Any] = {}
        for unit in self.units:
            if unit.name in schemes:
                sums = self.price_sums.get(price_sums_name(unit.name, price))
                if sums is None or sums.shape[1] < 2:
                    return None
                names = [candidate.scheme for candidate in unit.candidates]
                totals[unit.tower] = totals.get(unit.tower, 0.0) + sums[names.index(schemes[unit.name])].astype(float)
        if not totals:
            return None
        return math.hypot(*(self._error(total, tower) for tower, total in totals.items()))

    def candidate_errors(self, unit: str, price: str) -> list[float] | None:
        """Standard error of the price of each candidate of ``unit``, in nats per token; ``None`` as above."""
        sums = self.price_sums.get(price_sums_name(unit, price))
        if sums is None or sums.shape[1] < 2:
            return None
        tower = next(each.tower for each in self.units if each.name == unit)
        return [self._error(of_candidate.astype(float), tower) for of_candidate in sums]

    def tokens_priced(self, tower: bool) -> int:
        """What `price_sums` of units of a ``tower``, or of others, summed over the windows, are divided by."""
        return self.tower_price_tokens if tower else self.price_tokens

    def _error(self, sums: Any, tower: bool) -> float:
        """Of what ``sums [windows]`` add up to per token."""
        return float(sums.std(ddof=1) * math.sqrt(len(sums)) / self.tokens_priced(tower))

    def __repr__(self) -> str:
        return f"Sensitivity({len(self.units)} units, {self.tokens} tokens, prices {', '.join(self.prices)})"


def price_sums_name(unit: str, price: str) -> str:
    """Key of `Sensitivity.price_sums`."""
    return f"{unit}/{price}"


def document(sensitivity: Sensitivity) -> dict[str, Any]:
    """The part of ``sensitivity`` that is JSON."""
    return record.document(Document(**_fields(sensitivity)), SCHEMA)


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

    text = record.encode(Document(**_fields(sensitivity)), SCHEMA).decode()
    arrays = {**sensitivity.fisher_rows, **{_PRICES + name: sums for name, sums in sensitivity.price_sums.items()}}
    record.write_atomic(path, save(arrays, metadata={"prismaquant": text}))


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
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as cause:
        raise StageFileError(f"is not a sensitivity file ({cause})", where=str(path)) from cause
    rows = {name: array for name, array in arrays.items() if not name.startswith(_PRICES)}
    sums = {name.removeprefix(_PRICES): array for name, array in arrays.items() if name.startswith(_PRICES)}
    return Sensitivity(**_fields(document), fisher_rows=rows, price_sums=sums)


def _fields(document: Document) -> dict[str, Any]:
    return {each.name: getattr(document, each.name) for each in fields(Document)}


def _check_tensors(document: Document, slices: dict[str, Any], path: Path) -> None:
    """Every Linear has its rows, and every price its windows, of the right type and shape; there is nothing else."""
    expected = {linear.name: ["F32", [linear.rows]] for unit in document.units for linear in unit.linears}
    if document.price_tokens:
        windows = document.price_tokens // document.seq_len
        samples = document.tower_price_samples
        expected |= {
            _PRICES + price_sums_name(unit.name, price): [
                "F32",
                [len(unit.candidates), samples if unit.tower else windows],
            ]
            for unit in document.units
            for price in document.prices
        }
    found = {name: [part.get_dtype(), part.get_shape()] for name, part in slices.items()}
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise StageFileError(
                f"tensor {name!r} is {found.get(name, 'missing')}, expected {expected.get(name, 'none of this name')}",
                where=str(path),
                hint="the file is damaged: probe again",
            )
