"""Tables and lines on stdout. The only place that draws tables with rich."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

__all__ = ["line", "table"]

#: Without a terminal nothing is shortened or wrapped.
_WIDE = 1000


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> None:
    """Print ``rows``; the first ``left`` columns are left-aligned and wrap, the others are right-aligned numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        is_text = index < left
        drawn.add_column(Text(column), justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))  # Text: names are shown as they are, never read as markup
    Console(width=None if sys.stdout.isatty() else _WIDE).print(drawn)


def line(text: str) -> None:
    """Print one line, as it is."""
    sys.stdout.write(f"{text}\n")
