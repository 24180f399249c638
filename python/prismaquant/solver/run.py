"""`solve`: one weight in one format, by a chain of solvers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from prismaquant.codec import Quantized
from prismaquant.codec.arguments import require_global_scale, thread_count
from prismaquant.errors import ArgumentError
from prismaquant.formats import format_info
from prismaquant.quantity import parse_bytes
from prismaquant.solver.linalg import scipy_linalg
from prismaquant.solver.presets import CALIBRATED_PRESET, DEFAULT_PRESET, chain_of
from prismaquant.solver.report import Solution, SolveReport, StageReport
from prismaquant.solver.stages import StageLike
from prismaquant.solver.statistics import count_of, float32_tensor, importance_matrix

if TYPE_CHECKING:
    from prismaquant.types import Array, Tensor

__all__ = ["shared_global_scale", "solve"]


def solve(
    weight: Tensor,
    format: str,
    *,
    preset: str | Sequence[StageLike] | None = None,
    gram: Tensor | None = None,
    tokens: int | None = None,
    output_gram: Tensor | None = None,
    output_tokens: int | None = None,
    cross_gram: Tensor | None = None,
    pooled_gram: Tensor | None = None,
    pooled_tokens: int | None = None,
    importance: Array | None = None,
    damping: float | None = None,
    output_damping: float | None = None,
    global_scale: float | None = None,
    memory_limit: int | str | None = None,
    threads: int | None = None,
) -> Solution:
    """Quantize one matrix.

    The objective is ``tr(D' G D H)`` per token with ``D = decoded - weight``, ``H`` the Gram of the inputs and ``G``
    that of the output gradients: the error that the outputs make, seen by the loss. Without ``output_gram`` rows count
    alike, without ``gram`` it is the squared error of the weights. No stage makes it worse.

    Statistics are sums over tokens: numpy arrays or CPU tensors with ``__dlpack__`` (torch, JAX) of float32, which are
    borrowed, or of float64, float16 or bfloat16, which are converted.

    Parameters
    ----------
    weight
        ``[rows, columns]``; accepted objects as in `Codec.encode`.
    format
        Name of the format. What needs a Gram is for formats with scales; BF16 and FP16 are encoded, NF4 with double
        quantization is swept.
    preset
        Name of a preset (see `describe_presets`): stages whose statistics were not given are left out. Or a list of
        stages: objects (``Gptq(order="natural")``), names of solvers, or pairs of a name and a dict of options. By
        default ``"best"`` where there is a Gram, else ``"scale_sweep"``.
    gram
        ``[columns, columns]``: ``X' X`` of the inputs that the quantized matrix will see. All zeros with ``tokens=0``,
        for an expert that no token reached: the scale sweep is all that runs.
    tokens
        How many inputs ``gram`` sums; needed with it, because damping depends on it.
    output_gram
        ``[rows, rows]``: ``g' g`` of the gradients of the loss by the outputs. Or ``[rows, b]``: only its diagonal
        blocks of ``b`` rows, one below the other; ``[rows, 1]`` is one weight per row.
    output_tokens
        How many gradients ``output_gram`` sums; by default ``tokens``.
    cross_gram
        ``[columns, columns]``: ``X_source' X``, the inputs of the unquantized model against those of ``gram``, for
        `Shift`.
    pooled_gram
        ``[columns, columns]`` over the inputs of all experts of a layer: what ``gram`` is shrunk to where few tokens
        chose this expert.
    pooled_tokens
        How many inputs ``pooled_gram`` sums; needed with it.
    importance
        How much squared errors count in the scale sweep: float ``[columns]`` or ``[rows, columns]``, not negative.
    damping, output_damping
        Added to the diagonals of ``gram`` and ``output_gram``, as a share of their means. By default
        ``min(1, 1.2 * sqrt(dimension / tokens))``.
    global_scale
        Divisor of the whole unit of fused siblings (see `shared_global_scale`); by default the matrix' own.
    memory_limit
        Bytes that may be allocated, or text like ``"8GiB"``; by default nine tenths of the machine's memory.
    threads
        How many threads work on it; ``None``: all cores. The bytes do not depend on it. While a Gram is used, BLAS
        libraries are held at one thread, in the whole process.

    Raises
    ------
    FormatError
        Unknown format, preset, solver or option; an option's value, or a stage that is not for the format.
    ShapeError
        Shapes that do not fit the weight, a statistic that a stage of a list needs and that was not given, or more
        memory than allowed.
    NumericError
        NaN or infinite numbers, a Gram with a negative diagonal, or one that cannot be factored.
    ArgumentError, TypeError
        A count that is missing, statistics without ``gram``; a dtype or object that is not accepted.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> weight, x = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, 64), (500, 64)))
    >>> best = solve(weight, "nvfp4", gram=x.T @ x, tokens=len(x))
    >>> [stage.name for stage in best.report.stages]
    ['gptq', 'coordinate_descent']
    """
    from prismaquant import _core

    if preset is None:
        preset = DEFAULT_PRESET if gram is None else CALIBRATED_PRESET
    require_global_scale(format_info(format), global_scale)
    grams = {"gram": gram, "output_gram": output_gram, "cross_gram": cross_gram, "pooled_gram": pooled_gram}
    for name, value in grams.items():
        if value is not None and gram is None:
            raise ArgumentError(f"{name}: was given, but gram was not, and no solver uses it alone")
    limit = 0 if memory_limit is None else parse_bytes(memory_limit)
    if memory_limit is not None and limit < 1:
        raise ArgumentError(f"memory_limit: {memory_limit}, expected a positive number of bytes")
    if importance is not None:
        weight = _core.TensorView(weight, "weight")
        importance = importance_matrix(importance, weight.shape)
    arguments: dict[str, Any] = {name: float32_tensor(value, name) for name, value in grams.items()}
    scope: AbstractContextManager[dict[str, Any]] = nullcontext({}) if gram is None else scipy_linalg()
    with scope as linalg:
        solved = _core.solve(
            weight,
            format,
            chain_of(preset),
            global_scale=global_scale,
            tokens=count_of(tokens, "tokens", "gram", gram),
            output_tokens=count_of(output_tokens, "output_tokens", "output_gram", output_gram, required=False),
            pooled_tokens=count_of(pooled_tokens, "pooled_tokens", "pooled_gram", pooled_gram),
            importance=importance,
            damping=damping,
            output_damping=output_damping,
            memory_limit=limit,
            linalg=linalg,
            threads=thread_count(threads),
            **arguments,
        )
    stages = tuple(StageReport(**stage) for stage in solved.pop("stages"))
    report = SolveReport(
        preset if isinstance(preset, str) else None, solved.pop("squared_error"), solved.pop("dead_columns"), stages
    )
    return Solution(Quantized(format, **solved), report)


def shared_global_scale(
    weights: Sequence[Tensor], format: str, *, preset: str | Sequence[StageLike] = DEFAULT_PRESET
) -> float | None:
    """The one global scale (a divisor) of fused siblings, from their common largest magnitude.

    ``448 * 6 / amax`` where nothing but ``"rtn"`` runs, else ``256 * 6 / amax``, which leaves room for upward moves of
    block scales; ``None`` for formats without one. Engines keep a single global scale per fused matrix, so siblings
    with different ones would be decoded wrongly.

    Raises
    ------
    FormatError
        Unknown format, preset, solver or option.
    ShapeError, NumericError, TypeError
        As in `Codec.encode`.
    """
    from prismaquant import _core

    format_info(format)  # refuses an unknown one
    return _core.shared_global_scale(list(weights), format, chain_of(preset))
