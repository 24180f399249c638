"""The one kind of table that the benchmarks print."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Line", "print_table", "verdict"]


class Line(NamedTuple):
    """``what`` groups lines; ``ratio`` says itself what it is a ratio of."""

    what: str
    who: str
    speed: str
    ratio: str = ""
    goal: str = ""


def verdict(goal: str, met: bool | None) -> str:
    """The goal and whether it was met; empty where there is none."""
    return "" if met is None else f"{goal} " + ("met" if met else "MISSED")


def print_table(lines: Iterable[Line]) -> None:
    from rich.console import Console
    from rich.table import Table

    made = Table(*(name.replace("who", "by") for name in Line._fields))
    last = ""
    for line in lines:
        if line.what != last:
            made.add_section()
        made.add_row("" if line.what == last else line.what, *line[1:])
        last = line.what
    Console(width=130).print(made)
