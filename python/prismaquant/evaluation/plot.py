"""The Pareto picture: KL divergence over bits per weight, for uniform and for mixed checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prismaquant.errors import ArgumentError, MissingExtraError
from prismaquant.files.evaluation import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Point", "pareto_figure", "save"]

# Two colours of Okabe and Ito that people with any colour vision tell apart; the markers differ as well.
_UNIFORM = ("one format everywhere", "s", "#0072B2")
_MIXED = ("mixed by sensitivity", "o", "#D55E00")
_STYLE: Any = {
    "font.size": 11,
    "svg.fonttype": "none",  # text stays text: sharp, searchable, and readable by a screen reader
    "svg.hashsalt": "prismaquant",  # the same picture is the same file
}


@dataclass(frozen=True, slots=True)
class Point:
    """One checkpoint in the picture.

    Attributes
    ----------
    label
        Written beside the point.
    bpw
        Bits per weight.
    kl
        KL divergence to the source with its interval, nats per token.
    uniform
        Whether all units have one format.
    """

    label: str
    bpw: float
    kl: Estimate
    uniform: bool


def pareto_figure(points: Sequence[Point], *, title: str = "") -> Figure:
    """The picture of ``points``, with a line through the uniform ones.

    Both axes are linear, so that the line is what mixing two formats at random would reach.

    Raises
    ------
    ArgumentError
        There are no points.
    MissingExtraError
        matplotlib is not installed.
    """
    if not points:
        raise ArgumentError("is empty", where="points", hint="give at least one checkpoint")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as cause:
        raise MissingExtraError(
            "matplotlib is not installed", hint="install it with: pip install 'prismaquant-cpp[eval]'"
        ) from cause
    with rc_context(_STYLE):
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.add_subplot()
        uniform = sorted((point for point in points if point.uniform), key=lambda point: point.bpw)
        mixed = [point for point in points if not point.uniform]
        axes.plot([point.bpw for point in uniform], [point.kl.value for point in uniform], "--", color="#767676")
        for (label, marker, color), members in ((_UNIFORM, uniform), (_MIXED, mixed)):
            if members:
                x, y = [point.bpw for point in members], [point.kl.value for point in members]
                error = [[p.kl.value - p.kl.low for p in members], [p.kl.high - p.kl.value for p in members]]
                axes.errorbar(x, y, error, fmt=marker, color=color, label=label, capsize=3, markersize=7)
        for point in points:
            axes.annotate(
                point.label, (point.bpw, point.kl.value), xytext=(9, 6), textcoords="offset points", fontsize=9.5
            )
        axes.set(xlabel="bits per weight", ylabel="KL divergence to the source (nats per token)", title=title)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.12)
        axes.grid(color="#e4e4e4", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper right")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write ``figure`` to ``path``, in the format of its suffix (``.svg``, ``.png``); equal pictures, equal files."""
    from matplotlib import rc_context

    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with rc_context(_STYLE):
        figure.savefig(path, dpi=160, metadata=metadata)
