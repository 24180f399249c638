"""`render`: a unit in a format, as the bytes that are priced, written and verified."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from prismaquant.codec import get_codec
from prismaquant.errors import Error, RefusedError
from prismaquant.formats import BF16, format_info, get_scheme
from prismaquant.solver import preset_needs_gram, shared_global_scale, solve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prismaquant.codec import Quantized
    from prismaquant.model import Model, Unit
    from prismaquant.types import Array, Tensor

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

    Where a format has one scale per tensor and no other, siblings that share their input are solved as one matrix: an
    engine that stacks them keeps one scale.

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
    for group in unit.siblings if _has_one_scale(format) else [(linear,) for linear in unit.linears]:
        names = [linear.name for linear in group]
        known = {} if grams is None or not uses_grams else _statistics([grams[name] for name in names])
        stacked = weights[names[0]] if len(names) == 1 else np.concatenate([weights[name] for name in names])
        try:
            solution = solve(stacked, format, preset=preset, global_scale=scale, threads=threads, **known)
        except Error as error:
            error.add_note(f"in {', '.join(names)}, to {format} by {preset}")
            raise
        if len(names) == 1:
            quantized[names[0]] = solution.quantized
            squared_error[names[0]] = solution.report.squared_error
            continue
        parts = np.split(solution.quantized.codes, np.cumsum([linear.rows for linear in group])[:-1])
        for linear, codes in zip(group, parts, strict=True):
            part = replace(solution.quantized, shape=(linear.rows, linear.columns), codes=codes)
            quantized[linear.name] = part
            squared_error[linear.name] = get_codec(format).squared_error(weights[linear.name], part, threads=threads)
    return Rendering(unit.name, format, quantized, squared_error)


def _has_one_scale(format: str) -> bool:
    """Whether one block scale reaches over the whole tensor."""
    facts = format_info(format)
    return bool(facts.scale_bits) and facts.block_rows == facts.block_columns == 0


def _statistics(grams: Sequence[Grams]) -> dict[str, Any]:
    """What `solve` takes for siblings, one below the other: they share their input, rows then count each for itself."""
    known = {field.name: getattr(grams[0], field.name) for field in fields(Grams)}
    if len(grams) > 1:
        known["output_gram"] = np.concatenate([_of_rows(np.asarray(each.output_gram)) for each in grams])
    return known


def _of_rows(blocks: Array) -> Array:
    """The diagonal, ``[rows, 1]``, of diagonal blocks ``[rows, b]`` that lie one below the other."""
    rows = np.arange(blocks.shape[0])
    return blocks[rows, rows % blocks.shape[1], None]
