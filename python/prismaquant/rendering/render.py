"""`render`: a unit in a format, as the bytes that are priced, written and verified."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from prismaquant.errors import Error, RefusedError
from prismaquant.formats import BF16, get_scheme
from prismaquant.solver import preset_needs_gram, shared_global_scale, solve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prismaquant.codec import Quantized
    from prismaquant.model import Model, Unit
    from prismaquant.types import Tensor

__all__ = ["Grams", "Rendering", "needs_grams", "render"]


@dataclass(frozen=True, slots=True)
class Grams:
    """What solvers want to know of the data that pass one Linear ``[rows, columns]``.

    Attributes
    ----------
    gram
        float32 ``[columns, columns]``: sum over tokens of ``x x^T``, ``x`` the input.
    tokens
        How many inputs ``gram`` sums.
    output_gram
        float32 ``[rows, b]``: the diagonal blocks, of ``b`` rows, of the sum of ``g g^T``, ``g`` the output gradient.
    output_tokens
        How many gradients ``output_gram`` sums.
    cross_gram
        float32 ``[columns, columns]``: sum of ``x_source x^T``, ``x_source`` the input in the unquantized model, where
        ``x`` is another.
    pooled_gram, pooled_tokens
        As ``gram`` and ``tokens``, over all experts of a bank: what ``gram`` is shrunk to where few tokens were seen.
    """

    gram: Tensor
    tokens: int
    output_gram: Tensor
    output_tokens: int
    cross_gram: Tensor | None = None
    pooled_gram: Tensor | None = None
    pooled_tokens: int | None = None

    def __repr__(self) -> str:
        return f"Grams({self.tokens} tokens)"


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


def needs_grams(preset: str, format: str) -> bool:
    """Whether a rendering in ``format`` by ``preset`` depends on data; in BF16 it is rounded in any case.

    Raises
    ------
    FormatError
        If the preset is unknown.
    """
    return preset_needs_gram(preset) and format != get_scheme(BF16).weight_format


def render(
    model: Model,
    unit: Unit,
    format: str,
    *,
    preset: str,
    grams: Mapping[str, Grams] | None = None,
    threads: int | None = None,
) -> Rendering:
    """Solve every Linear of ``unit`` in ``format``, with one global scale for all of them where the format has one.

    Parameters
    ----------
    format
        Name of a weight format.
    preset
        Name of a solver preset.
    grams
        By the name of a Linear; not used by data-free presets.
    threads
        How many threads work on it; ``None``: all. The bytes do not depend on it.

    Raises
    ------
    FormatError
        If the format or preset is unknown.
    RefusedError
        If the preset needs ``grams`` and there are none.
    NumericError
        If a weight has a NaN or an infinity; names the tensor.
    ShapeError
        If the columns of a Linear do not divide into the groups of the format.
    """
    uses_grams = needs_grams(preset, format)
    if uses_grams and grams is None:
        raise RefusedError(
            f"preset {preset!r} solves for the inputs of the model, and nothing is known of them here",
            where=f"{unit.name}, {format}",
            hint="use the work folder in which this model was probed (--work-dir), or probe again",
        )
    weights = {linear.name: model.read_weight(linear) for linear in unit.linears}
    scale = shared_global_scale(list(weights.values()), format, preset=preset)
    quantized, squared_error = {}, {}
    for name, weight in weights.items():
        known = {} if grams is None or not uses_grams else _fields(grams[name])
        try:
            solution = solve(weight, format, preset=preset, global_scale=scale, threads=threads, **known)
        except Error as error:
            error.add_note(f"in {name}, to {format} by {preset}")
            raise
        quantized[name] = solution.quantized
        squared_error[name] = solution.report.squared_error
    return Rendering(unit.name, format, quantized, squared_error)


def _fields(grams: Grams) -> dict[str, Any]:
    return {field.name: getattr(grams, field.name) for field in fields(grams)}
