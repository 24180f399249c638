"""Progress of a command: a bar with the remaining time on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from prismaquant.progress import Event, Progress, line_progress

__all__ = ["bar"]


@contextmanager
def bar() -> Iterator[Progress]:
    """A sink of progress events for the length of a command; everything goes to stderr."""
    if not sys.stderr.isatty():
        yield line_progress(_write_line)
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description:9}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[item]}", markup=False),
    )
    with progress.Progress(*columns, console=Console(stderr=True), speed_estimate_period=120) as display:
        tasks: dict[str, progress.TaskID] = {}

        def sink(event: Event) -> None:
            if event.stage not in tasks:
                tasks[event.stage] = display.add_task(event.stage, item="")
            display.update(tasks[event.stage], completed=event.done, total=event.total, item=event.item)

        yield sink


def _write_line(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
