"""The Pareto picture."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from prismaquant.errors import ArgumentError
from prismaquant.evaluation.plot import Point, pareto_figure, save
from prismaquant.files.evaluation import Estimate

POINTS = [
    Point("FP8", 8.06, Estimate(0.0004, 0.0003, 0.0005), uniform=True),
    Point("NVFP4A16", 4.5, Estimate(0.0043, 0.0041, 0.0045), uniform=True),
    Point("4.75 bpw", 4.75, Estimate(0.0029, 0.0027, 0.0031), uniform=False),
    Point("<6 & more>", 6.0, Estimate(0.0012, 0.0011, 0.0013), uniform=False),
]


def test_the_svg_is_well_formed_and_says_everything(tmp_path: Path) -> None:
    path = tmp_path / "new" / "pareto.svg"
    save(pareto_figure(POINTS, title="a model"), path)
    texts = {"".join(element.itertext()).strip() for element in ElementTree.parse(path).iter() if "text" in element.tag}
    assert texts >= {point.label for point in POINTS}
    assert texts >= {"a model", "bits per weight", "KL divergence to the source (nats per token)"}


def test_the_same_points_give_the_same_svg(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        save(pareto_figure(POINTS), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_png_is_a_picture(tmp_path: Path) -> None:
    save(pareto_figure(POINTS), tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_points_and_line_lie_where_the_numbers_say() -> None:
    (axes,) = pareto_figure(POINTS).axes
    line = next(line for line in axes.lines if line.get_linestyle() == "--")
    assert line.get_xydata().tolist() == [[4.5, 0.0043], [8.06, 0.0004]]
    drawn = {tuple(xy) for line in axes.lines if line.get_marker() in "so" for xy in line.get_xydata().tolist()}
    assert drawn == {(point.bpw, point.kl.value) for point in POINTS}
    ends = sorted(
        y for bars in axes.collections for segment in bars.get_segments() for y in segment[:, 1].round(9).tolist()
    )
    assert ends == sorted(end for point in POINTS for end in (point.kl.low, point.kl.high))


def test_the_legend_has_only_what_is_there() -> None:
    (axes,) = pareto_figure([POINTS[2]]).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["mixed by sensitivity"]


def test_no_points_are_refused() -> None:
    with pytest.raises(ArgumentError, match="empty"):
        pareto_figure([])
