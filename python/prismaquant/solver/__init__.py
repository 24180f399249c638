"""Solvers: choose codes and scales for a weight. The face of the C++ room ``solver/``."""

from __future__ import annotations

from prismaquant.solver.presets import (
    CALIBRATED_PRESET,
    DEFAULT_PRESET,
    Preset,
    describe_presets,
    list_presets,
    preset_needs_gram,
)
from prismaquant.solver.report import Solution, SolveReport, StageReport
from prismaquant.solver.run import shared_global_scale, solve
from prismaquant.solver.stages import CoordinateDescent, Gptq, Rtn, ScaleSweep, Shift, TwoSided

__all__ = [
    "CALIBRATED_PRESET",
    "DEFAULT_PRESET",
    "CoordinateDescent",
    "Gptq",
    "Preset",
    "Rtn",
    "ScaleSweep",
    "Shift",
    "Solution",
    "SolveReport",
    "StageReport",
    "TwoSided",
    "describe_presets",
    "list_presets",
    "preset_needs_gram",
    "shared_global_scale",
    "solve",
]
