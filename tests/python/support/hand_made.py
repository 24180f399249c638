"""A model of given shapes and a sensitivity of given prices, without a file behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prismaquant import planning
from prismaquant.files.plan import Plan
from prismaquant.files.sensitivity import Candidate, LinearSensitivity, Sensitivity, UnitSensitivity
from prismaquant.formats import get_scheme, stored_bytes, why_not
from prismaquant.model import Architecture, Linear, TensorInfo, Unit
from prismaquant.planning.menu import Menu

__all__ = ["MODEL", "HandMadeModel", "menu_of", "model_of", "plan", "sensitivity_of"]

MODEL = "sha256:" + "a" * 64
_ARCHITECTURE = Architecture("hand-made", (), "u", "", ())
_BYTES = {"BF16": 2, "F16": 2, "F32": 4}


@dataclass(frozen=True)
class HandMadeModel:
    """The attributes of `Model` that planning reads."""

    units: tuple[Unit, ...]
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict)
    passthrough: tuple[str, ...] = ()
    fingerprint: str = MODEL
    path: Path = Path("hand-made")
    text_config: Mapping[str, Any] = field(default_factory=dict)
    architecture: Architecture = _ARCHITECTURE
    kept_units: tuple[Unit, ...] = ()
    is_tied: bool = False

    def with_units(self, units: Iterable[Unit]) -> HandMadeModel:
        assert not list(units)
        return self

    @property
    def num_layers(self) -> int:
        return len(self.units)


def _tensor(name: str, dtype: str, shape: tuple[int, ...]) -> TensorInfo:
    size = _BYTES[dtype]
    for axis in shape:
        size *= axis
    return TensorInfo(name=name, dtype=dtype, shape=shape, file="model.safetensors", begin=0, end=size)


def model_of(
    shapes: Sequence[Iterable[tuple[int, int]]], *, dtype: str = "BF16", passthrough_bytes: int = 0
) -> HandMadeModel:
    """One unit per entry of ``shapes``, which lists ``[rows, columns]`` of its Linears ``u0.l0``, ``u0.l1``, ..."""
    units = []
    for number, members in enumerate(shapes):
        linears = tuple(
            Linear(f"u{number}.l{index}", _tensor(f"u{number}.l{index}.weight", dtype, shape))
            for index, shape in enumerate(members)
        )
        units.append(Unit(name=f"u{number}", layer=number, linears=linears))
    other = _tensor("norm.weight", "BF16", (passthrough_bytes // 2,))
    tensors = {linear.weight.name: linear.weight for unit in units for linear in unit.linears}
    return HandMadeModel(tuple(units), {**tensors, other.name: other}, (other.name,))


def menu_of(*schemes: str) -> Menu:
    """A menu of ``schemes``."""
    return Menu(tuple(map(get_scheme, schemes)), {})


def plan(model: HandMadeModel, sensitivity: Sensitivity | None = None, **request: Any) -> Plan:
    """What planning makes of a request with these arguments; the menu is without NVFP4 if none is given."""
    request.setdefault("schemes", ("NVFP4A16", "FP8_DYNAMIC", "BF16"))
    return planning.plan(model, sensitivity, planning.Request(**request))


def sensitivity_of(
    model: HandMadeModel,
    prices: Sequence[Mapping[str, float]],
    *,
    price: str = "directional",
    preset: str = "scale_sweep",
) -> Sensitivity:
    """What a probe would have written: ``prices`` says for each unit what each scheme costs; those that do not fit are
    left out, as a probe does."""
    units = []
    for unit, costs in zip(model.units, prices, strict=True):
        linears = tuple(LinearSensitivity(x.name, x.rows, x.columns, 1.0, 1.0) for x in unit.linears)
        candidates = []
        for name, cost in costs.items():
            scheme = get_scheme(name)
            if not any(why_not(scheme, x.rows, x.columns) for x in unit.linears):
                size = sum(stored_bytes(scheme, x.rows, x.columns) for x in unit.linears)
                candidates.append(Candidate(name, size, cost, {price: cost}))
        units.append(UnitSensitivity(unit.name, linears, tuple(candidates)))
    return Sensitivity(
        model=model.fingerprint, data="sha256:data", tokens=256, seq_len=128, probes=1, seed=0,
        preset=preset, prices=(price,), units=tuple(units),
    )  # fmt: skip
