"""Progress of a command: a bar with the remaining time on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from prismaquant.progress import Event, Progress, line_progress

__all__ = ["bar"]


@contextmanager
def bar() -> Iterator[Progress]:
    """A sink of progress events for the length of a command; they and what is logged go to stderr."""
    with _remarks():
        if sys.stderr.isatty():
            with _display() as sink:
                yield sink
        else:
            yield line_progress(_write_line)


@contextmanager
def _display() -> Iterator[Progress]:
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


@contextmanager
def _remarks() -> Iterator[None]:
    """Shows what the package logs, as plain lines."""
    logger, handler = logging.getLogger("prismaquant"), _Lines()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _write_line(record.getMessage())


def _write_line(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
