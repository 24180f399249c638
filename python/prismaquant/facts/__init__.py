"""Facts about machines and engines, as data with a source and a date each: ``devices.toml`` and ``engines.toml``.

A new device is one entry. Planning reads them, and nothing else in the package knows a device by name.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from typing import Any, TypeVar

import msgspec

from prismaquant.errors import ArgumentError

__all__ = [
    "CacheDtype",
    "Device",
    "Engine",
    "Family",
    "Fault",
    "find_cache",
    "find_device",
    "find_engine",
    "list_devices",
    "list_faults",
]


Named = TypeVar("Named", bound="Family | Device | Engine | CacheDtype")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Family:
    """Devices with the same kernels.

    Attributes
    ----------
    name, capability
        Its name, and what the vendor calls its instruction sets.
    native
        Schemes that are served with their own activations.
    weight_only
        Schemes that are served from the same bytes with 16-bit activations.
    source, date
        Where and when this was read.
    """

    name: str
    capability: str
    native: tuple[str, ...]
    weight_only: tuple[str, ...]
    source: str
    date: date


@dataclass(frozen=True, slots=True)
class Device:
    """One device, or any of a family.

    Attributes
    ----------
    family
        How it serves schemes.
    memory, bandwidth
        Bytes, and bytes per second, as the vendor states them; ``None`` for a family.
    """

    name: str
    family: Family
    memory: int | None
    bandwidth: int | None
    source: str
    date: date

    def __repr__(self) -> str:
        return f"Device({self.name}, {self.family.name})"


@dataclass(frozen=True, slots=True)
class Engine:
    """How an inference engine uses memory.

    Attributes
    ----------
    memory_utilization
        Share of a device that it takes by default.
    cache_block
        Tokens of keys and values that are kept or freed together.
    large_device
        Bytes of a device from which on its steps are long.
    batched_tokens, sequences
        Most tokens, and most sequences, of one step: on smaller devices, and on large ones.
    """

    name: str
    memory_utilization: float
    cache_block: int
    large_device: int
    batched_tokens: tuple[int, int]
    sequences: tuple[int, int]
    source: str
    date: date


@dataclass(frozen=True, slots=True)
class CacheDtype:
    """How keys and values are kept; ``bits`` per element, scales of blocks included."""

    name: str
    bits: float
    source: str
    date: date


@dataclass(frozen=True, slots=True)
class Fault:
    """What an engine does to checkpoints that are right.

    Attributes
    ----------
    engine, versions
        Whose, and of which releases.
    schemes
        Whose weights are concerned.
    experts
        Whether only banks of experts are.
    text
        What goes wrong.
    refuses
        Whether the engine does not load such a folder.
    names
        Expression that is found in the names of the units that are concerned; empty: all.
    """

    engine: str
    versions: str
    schemes: tuple[str, ...]
    experts: bool
    text: str
    source: str
    date: date
    refuses: bool = False
    names: str = ""

    def concerns(self, scheme: str, unit: str, *, is_bank: bool = False) -> bool:
        """Whether the unit of that name is wrong in ``scheme``."""
        return scheme in self.schemes and (is_bank or not self.experts) and re.search(self.names, unit) is not None

    def __str__(self) -> str:
        return f"{self.engine} {self.versions} {self.text}"


def list_faults() -> tuple[Fault, ...]:
    """All known faults of engines."""
    return tuple(_entries("engines", "faults", Fault))


def list_devices() -> tuple[Device, ...]:
    """All known devices, in the order of the table."""
    families = {family.name: family for family in _entries("devices", "families", Family)}
    return tuple(
        Device(
            name=entry["name"],
            family=families[entry["family"]],
            memory=entry["memory"] * 10**9,
            bandwidth=entry["bandwidth"] * 10**9,
            source=entry["source"],
            date=entry["date"],
        )
        for entry in _table("devices")["devices"]
    )


def find_device(name: str) -> Device:
    """The device, or the family, called ``name``; case, spaces and hyphens do not matter.

    Raises
    ------
    ArgumentError
        There is none; lists all.
    """
    families = [
        Device(family.name, family, None, None, family.source, family.date)
        for family in _entries("devices", "families", Family)
    ]
    return _find("device", name, [*list_devices(), *families])


def find_engine(name: str = "vllm") -> Engine:
    """The engine called ``name``."""
    return _find("engine", name, _entries("engines", "engines", Engine))


def find_cache(name: str) -> CacheDtype:
    """How keys and values called ``name`` are kept; ``"auto"`` is the dtype of the model, taken as BF16.

    Raises
    ------
    ArgumentError
        There is none; lists all.
    """
    return _find("kv dtype", "bf16" if name == "auto" else name, _entries("engines", "caches", CacheDtype))


def _find(kind: str, name: str, known: Iterable[Named]) -> Named:
    by_key: dict[str, Named] = {}
    for entry in known:
        by_key.setdefault(_key(entry.name), entry)  # of a device and a family that share a name, the device
    found = by_key.get(_key(name))
    if found is None:
        names = ", ".join(entry.name for entry in by_key.values())
        near = difflib.get_close_matches(_key(name), by_key, n=1, cutoff=0.6)
        raise ArgumentError(
            f"unknown {kind} {name!r}",
            hint=f"known: {names}" + (f"; did you mean {by_key[near[0]].name!r}?" if near else ""),
        )
    return found


def _key(name: str) -> str:
    return "".join(letter for letter in str(name).lower() if letter.isalnum())


@cache
def _table(file: str) -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath(f"{file}.toml").read_text("utf-8"))


def _entries(file: str, key: str, kind: type[T]) -> tuple[T, ...]:
    return tuple(msgspec.convert(entry, kind) for entry in _table(file)[key])
