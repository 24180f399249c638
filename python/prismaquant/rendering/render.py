"""`render`: a unit in a format, as the bytes that are priced, written and verified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prismaquant.solver import require_data_free_preset, shared_global_scale, solve

if TYPE_CHECKING:
    from prismaquant.codec import Quantized
    from prismaquant.model import Model, Unit

__all__ = ["Rendering", "render"]


@dataclass(frozen=True, slots=True)
class Rendering:
    """One unit in one weight format.

    Attributes
    ----------
    unit, format
        Names of both.
    quantized
        Name of each Linear of the unit -> its codes and scales.
    squared_error
        Name of each Linear -> sum of ``(decoded - weight)^2``.
    """

    unit: str
    format: str
    quantized: dict[str, Quantized]
    squared_error: dict[str, float]

    def __repr__(self) -> str:
        error = sum(self.squared_error.values())
        return f"Rendering({self.unit} in {self.format}, squared error {error:.4g})"


def render(model: Model, unit: Unit, format: str, *, preset: str, threads: int | None = None) -> Rendering:
    """Solve every Linear of ``unit`` in ``format``, with one global scale for all of them where the format has one.

    Parameters
    ----------
    format
        Name of a weight format.
    preset
        Name of a solver preset that needs no Gram.
    threads
        How many threads work on it; ``None``: all. The bytes do not depend on it.

    Raises
    ------
    FormatError
        If the format or preset is unknown, or the preset needs a Gram.
    NumericError
        If a weight has a NaN or an infinity; names the tensor.
    ShapeError
        If the columns of a Linear do not divide into the groups of the format.
    """
    require_data_free_preset(preset)
    weights = {linear.name: model.read_weight(linear) for linear in unit.linears}
    scale = shared_global_scale(list(weights.values()), format, preset=preset)
    quantized, squared_error = {}, {}
    for name, weight in weights.items():
        solution = solve(weight, format, preset=preset, global_scale=scale, threads=threads)
        quantized[name] = solution.quantized
        squared_error[name] = solution.report.squared_error
    return Rendering(unit.name, format, quantized, squared_error)
