"""Stages of a chain: one class per solver, whose fields are its options. Names and defaults are those of C++."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, TypeAlias

from prismaquant.errors import FormatError
from prismaquant.formats import unknown_name

__all__ = [
    "STAGES",
    "CoordinateDescent",
    "Gptq",
    "Rtn",
    "ScaleSweep",
    "Shift",
    "Stage",
    "StageLike",
    "TwoSided",
    "stage_of",
    "stages_of",
]


@dataclass(frozen=True, slots=True)
class Rtn:
    """Round to nearest under amax scales: the bytes of compressed-tensors' own compressor."""

    name: ClassVar[str] = "rtn"


@dataclass(frozen=True, slots=True)
class ScaleSweep:
    """For each block the scale with the least squared error, then elements to the nearest.

    Attributes
    ----------
    use_gram_diagonal
        Without ``importance``: weigh errors by the diagonal of the Gram.
    four_over_six
        Try the two scales of "Four Over Six" only (nvfp4).
    """

    name: ClassVar[str] = "scale_sweep"

    use_gram_diagonal: bool = False
    four_over_six: bool = False


@dataclass(frozen=True, slots=True)
class Shift:
    """Moves the target, so that the weights answer for the inputs of the quantized layers before them.

    Must come first; needs ``cross_gram``. ``W + strength * W D (H + shrinkage * mean diagonal * I)^-1`` with ``D`` the
    difference of ``cross_gram`` and ``gram``, per token.

    Attributes
    ----------
    strength
        ``None``: 0.75, with fewer than ten tokens per column 0.5.
    shrinkage
        ``None``: 0.01, with fewer than ten tokens per column 0.1.
    """

    name: ClassVar[str] = "shift"

    strength: float | None = None
    shrinkage: float | None = None


@dataclass(frozen=True, slots=True)
class Gptq:
    """Columns are rounded one after the other, each error spread over those that follow (arXiv 2210.17323).

    Attributes
    ----------
    order
        Of the columns. ``"activation"``: by falling diagonal of the Gram. ``"group_activation"``: the same for groups
        of columns that share a scale, and inside of each. ``"automatic"``: ``"group_activation"`` where scales are
        chosen in the loop, else ``"activation"``.
    scales
        ``"in_loop"``: for each group when it is reached, the best for its compensated weights. ``"given"``: those of
        the stage before, at the start of a chain those of `ScaleSweep`. ``"automatic"``: ``"in_loop"`` where the
        scales of the format can be swept.
    """

    name: ClassVar[str] = "gptq"

    order: Literal["automatic", "natural", "activation", "group_activation"] = "automatic"
    scales: Literal["automatic", "in_loop", "given"] = "automatic"


@dataclass(frozen=True, slots=True)
class CoordinateDescent:
    """One element after the other moves to its best value while all others stay, until no change of one helps.

    Attributes
    ----------
    sweeps
        Over all elements, at most.
    refit_scales
        Also every scale, in closed form, where the format has one per group of a row.
    """

    name: ClassVar[str] = "coordinate_descent"

    sweeps: int = 4
    refit_scales: bool = True


@dataclass(frozen=True, slots=True)
class TwoSided:
    """Coordinate descent on ``tr(D' G D H)``: rows are coupled by the Gram ``G`` of the output gradients.

    Needs ``output_gram``.

    Attributes
    ----------
    block
        Rows are coupled only inside of blocks of so many, or of those that ``output_gram`` has if they are smaller.
        0: all up to 4096 rows, else 128; where ``output_gram`` has blocks only, those.
    passes
        Over the matrix, at most.
    inner_sweeps
        Over a strip of 128 columns of a row before the next row, at most.
    """

    name: ClassVar[str] = "two_sided"

    block: int = 0
    passes: int = 3
    inner_sweeps: int = 3


Stage: TypeAlias = Rtn | ScaleSweep | Shift | Gptq | CoordinateDescent | TwoSided

#: What stands for a stage: the object; the name of a solver; or a pair of that name and options.
StageLike: TypeAlias = Stage | str | tuple[str, Mapping[str, Any]]

#: Name of a solver -> its class.
STAGES: dict[str, type[Stage]] = {
    stage.name: stage for stage in (Rtn, ScaleSweep, Shift, Gptq, CoordinateDescent, TwoSided)
}


def stage_of(item: StageLike) -> Stage:
    """The stage that ``item`` stands for.

    Raises
    ------
    FormatError
        An unknown solver or option.
    TypeError
        Something else than a stage, a name, or a name with options.
    """
    if isinstance(item, Rtn | ScaleSweep | Shift | Gptq | CoordinateDescent | TwoSided):
        return item
    name, options = (item, {}) if isinstance(item, str) else _name_and_options(item)
    if name not in STAGES:
        raise unknown_name("solver", name, STAGES)
    known = [field.name for field in fields(STAGES[name])]
    for option in options:
        if option not in known:
            raise unknown_name(f"option of {name}", option, known)
    return STAGES[name](**options)


def stages_of(items: Sequence[StageLike]) -> list[tuple[str, dict[str, Any]]]:
    """A chain as the compiled core takes it, which checks the values of options."""
    if not items:
        raise FormatError("preset: the list of stages is empty")
    return [(stage.name, asdict(stage)) for stage in map(stage_of, items)]


def _name_and_options(item: object) -> tuple[str, Mapping[str, Any]]:
    if isinstance(item, Sequence) and len(item) == 2:
        name, options = item
        if isinstance(name, str) and isinstance(options, Mapping):
            return name, options
    raise TypeError(
        f"preset: a stage is {item!r}, expected an object like Gptq(), the name of a solver, or (name, options)"
    )
