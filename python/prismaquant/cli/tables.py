"""Tables and lines on stdout. The only place that draws with rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["line", "table"]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None, left: int = 1) -> None:
    """Print ``rows``; the first ``left`` columns are left-aligned, the others, numbers, right-aligned."""
    from rich import box, table

    drawn = table.Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        drawn.add_column(column, justify="left" if index < left else "right", no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    _console().print(drawn)


def line(text: str) -> None:
    """Print one line, as it is."""
    _console().print(text, markup=False, highlight=False, soft_wrap=True)


def _console() -> Console:
    import sys

    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)
