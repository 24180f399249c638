"""Chains of solvers that have a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prismaquant.formats import unknown_name
from prismaquant.solver.stages import STAGES, Stage, StageLike, stage_of, stages_of

__all__ = [
    "CALIBRATED_PRESET",
    "DEFAULT_PRESET",
    "Preset",
    "chain_of",
    "describe_presets",
    "list_presets",
    "preset_needs_gram",
]

#: Where nothing but the weight is known.
DEFAULT_PRESET = "scale_sweep"
#: Where the Gram of the inputs is known too.
CALIBRATED_PRESET = "best"


@dataclass(frozen=True, slots=True)
class Preset:
    """A chain of solvers that has a name.

    Attributes
    ----------
    name
        As `solve` takes it.
    what
        What it does.
    cost
        Time for a weight ``[R, C]`` beside the factorisation of the Gram, in products of ``R * C * C`` multiply-adds.
    peak_memory
        What is allocated at most beside the arguments, in float32 numbers.
    needs_gram
        Whether it is more than a data-free preset only where the Gram of the inputs is known.
    stages
        What it runs; of them are left out those whose statistics are not given.
    """

    name: str
    what: str
    cost: str
    peak_memory: str
    needs_gram: bool
    stages: tuple[Stage, ...]


def describe_presets() -> tuple[Preset, ...]:
    """The solver presets with their stages, cost and peak memory, cheapest first.

    Examples
    --------
    >>> [(preset.name, preset.needs_gram) for preset in describe_presets()]
    [('rtn', False), ('scale_sweep', False), ('fast', True), ('best', True)]
    """
    from prismaquant import _core

    presets = []
    for fields in _core.list_presets():
        stages = tuple(stage_of(stage) for stage in fields.pop("stages"))
        presets.append(Preset(**fields, stages=stages))
    return tuple(presets)


def list_presets() -> tuple[str, ...]:
    """Names of the solver presets, cheapest first."""
    return tuple(preset.name for preset in describe_presets())


def chain_of(preset: str | Sequence[StageLike]) -> str | list[tuple[str, dict[str, Any]]]:
    """A preset or a list of stages, as the compiled core takes it.

    Raises
    ------
    FormatError
        An unknown preset, solver or option, or no stage at all.
    TypeError
        Something else.
    """
    if not isinstance(preset, str):
        if not isinstance(preset, Sequence):
            raise TypeError(f"preset: {preset!r}, expected the name of a preset or a list of stages")
        return stages_of(preset)
    if preset not in (known := list_presets()):
        error = unknown_name("preset", preset, known)
        if preset in STAGES:
            error.hint = f"{error.hint}; a stage alone is a list: preset=[{preset!r}]"
        raise error
    return preset


def preset_needs_gram(preset: str) -> bool:
    """Whether the preset called ``preset`` does more than a data-free one where the Gram of the inputs is known.

    Raises
    ------
    FormatError
        Unknown; the message lists the presets.
    """
    presets = {known.name: known for known in describe_presets()}
    if preset not in presets:
        raise unknown_name("preset", preset, presets)
    return presets[preset].needs_gram
