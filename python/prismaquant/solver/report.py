"""What a solver did. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from prismaquant.codec import Quantized

__all__ = ["Solution", "SolveReport", "StageReport"]


@dataclass(frozen=True, slots=True)
class StageReport:
    """What one stage of a chain did.

    Attributes
    ----------
    name
        Of the solver.
    before, after
        The objective of the chain, per token, for what came in and what went on. Nothing comes in to the first stage,
        unless it needs the values or scales of a sweep. Stages that only move the target (`Shift`) have neither, nor
        have formats without scales.
    damping, output_damping
        What was added to the diagonals of H and of G, as a share of their means.
    retries
        How often damping was raised tenfold because H could not be factored.
    passes
        Sweeps over all elements.
    changed
        Changes of values and scales, over all passes.
    rows_kept
        Rows that stayed as they came in, because the stage would have made them worse.
    seconds
        Wall time.
    """

    name: str
    before: float | None
    after: float | None
    damping: float
    output_damping: float
    retries: int
    passes: int
    changed: int
    rows_kept: int
    seconds: float

    def __repr__(self) -> str:
        facts = [f"{title} {text}" for title, text in zip(_COLUMNS[1:], _cells(self)[1:], strict=True) if text]
        return f"StageReport({self.name}: {', '.join(facts)})"


@dataclass(frozen=True, slots=True)
class SolveReport:
    """What a chain of solvers did.

    Attributes
    ----------
    preset
        Its name; ``None``: a list of stages.
    squared_error
        Sum of ``(decoded - weight)^2``.
    dead_columns
        Inputs that are always zero.
    stages
        One report for each stage that ran.
    """

    preset: str | None
    squared_error: float
    dead_columns: int
    stages: tuple[StageReport, ...]

    @property
    def objective(self) -> float | None:
        """What the chain minimizes, per token, for the result: that of its last stage, with damping."""
        return self.stages[-1].after

    @property
    def seconds(self) -> float:
        """Wall time of all stages."""
        return sum(stage.seconds for stage in self.stages)

    def __repr__(self) -> str:
        facts = [" -> ".join(stage.name for stage in self.stages)]
        if self.objective is not None:
            facts.append(f"objective {self.objective:.4g}")
        facts.append(f"squared error {self.squared_error:.4g}")
        if self.dead_columns:
            facts.append(f"{self.dead_columns} dead columns")
        return f"SolveReport({self.preset or 'stages'}: {', '.join(facts)})"

    def _repr_html_(self) -> str:
        cell = "text-align:right;padding:1px 12px 1px 0"
        lines = [_COLUMNS, *map(_cells, self.stages)]
        table = "".join(
            "<tr>" + "".join(f'<td style="{cell}">{escape(text)}</td>' for text in line) + "</tr>" for line in lines
        )
        return f"<div><strong>{escape(repr(self))}</strong><table>{table}</table></div>"


@dataclass(frozen=True, slots=True)
class Solution:
    """A solved matrix with its report."""

    quantized: Quantized
    report: SolveReport

    def __repr__(self) -> str:
        preset = self.report.preset or " -> ".join(stage.name for stage in self.report.stages)
        return f"Solution({self.quantized}, {preset}, squared error {self.report.squared_error:.4g})"

    def _repr_html_(self) -> str:
        return self.report._repr_html_() + self.quantized._repr_html_()


_COLUMNS = (
    "stage",
    "before",
    "after",
    "damping",
    "output damping",
    "retries",
    "passes",
    "changed",
    "rows kept",
    "seconds",
)


def _cells(stage: StageReport) -> tuple[str, ...]:
    """A line of the table; empty where there is nothing to say."""

    def number(value: float | None) -> str:
        return f"{value:.4g}" if value else ""

    objectives = tuple("" if value is None else f"{value:.4g}" for value in (stage.before, stage.after))
    shares = (number(stage.damping), number(stage.output_damping))
    counts = tuple(f"{count:,}" if count else "" for count in (stage.retries, stage.passes, stage.changed))
    kept = f"{stage.rows_kept:,}" if stage.rows_kept else ""
    return (stage.name, *objectives, *shares, *counts, kept, f"{stage.seconds:.3f}")
