"""Solvers: choose codes and scales for a weight. The face of the C++ room ``solver/``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prismaquant.codec import Quantized
from prismaquant.codec.arguments import require_global_scale, thread_count
from prismaquant.formats import FormatInfo, format_info, unknown_name

if TYPE_CHECKING:
    from prismaquant.types import Tensor

__all__ = ["DEFAULT_PRESET", "Solution", "SolveReport", "list_presets", "shared_global_scale", "solve"]

DEFAULT_PRESET = "scale_sweep"


@dataclass(frozen=True, slots=True)
class SolveReport:
    """What a solver did: its preset, and the sum of ``(decoded - weight)^2`` that is left."""

    preset: str
    squared_error: float


@dataclass(frozen=True, slots=True)
class Solution:
    """A solved matrix with its report."""

    quantized: Quantized
    report: SolveReport

    def __repr__(self) -> str:
        return f"Solution({self.quantized}, {self.report.preset}, squared error {self.report.squared_error:.4g})"


def list_presets() -> tuple[str, ...]:
    """Names of the solver presets, cheapest first."""
    from prismaquant import _core

    return tuple(_core.list_solvers())


def solve(
    weight: Tensor,
    format: str,
    *,
    preset: str = DEFAULT_PRESET,
    global_scale: float | None = None,
    threads: int | None = None,
) -> Solution:
    """Quantize one matrix.

    Parameters
    ----------
    weight
        ``[rows, columns]``; accepted objects as in `Codec.encode`.
    format
        Name of the format.
    preset
        ``"rtn"``: round to nearest under amax scales. ``"scale_sweep"``: every block gets the scale with the least
        squared error.
    global_scale
        Divisor of the whole unit of fused siblings (see `shared_global_scale`); by default the matrix' own.

    Raises
    ------
    FormatError
        Unknown format or preset.
    ShapeError, NumericError, TypeError
        As in `Codec.encode`.

    Examples
    --------
    >>> import numpy as np
    >>> solve(np.ones((2, 32), np.float32), "nvfp4").report.squared_error
    0.0
    """
    from prismaquant import _core

    require_global_scale(_require_known(format, preset), global_scale)
    solved = _core.solve(weight, format, preset, global_scale, thread_count(threads))
    report = SolveReport(preset, solved.pop("squared_error"))
    return Solution(Quantized(format, **solved), report)


def shared_global_scale(weights: Sequence[Tensor], format: str, *, preset: str = DEFAULT_PRESET) -> float | None:
    """The one global scale (a divisor) of fused siblings, from their common largest magnitude.

    ``448 * 6 / amax`` for ``"rtn"``, ``256 * 6 / amax`` for sweeping presets; ``None`` for formats without one. Engines
    keep a single global scale per fused matrix, so siblings with different ones would be decoded wrongly. Errors as for
    `Codec.encode`.
    """
    from prismaquant import _core

    _require_known(format, preset)
    return _core.shared_global_scale(list(weights), format, preset)


def _require_known(format: str, preset: str) -> FormatInfo:
    info = format_info(format)
    if preset not in (known := list_presets()):
        raise unknown_name("preset", preset, known)
    return info
