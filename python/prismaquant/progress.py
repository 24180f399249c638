"""Progress of long work, as plain events: a stage emits, the caller (command line, notebook, log) shows.

No callback ever crosses into the compiled module; events are sent from Python between units of work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

__all__ = ["Event", "Progress", "line_progress", "logging_progress", "silent"]


@dataclass(frozen=True, slots=True)
class Event:
    """``done`` of ``total`` steps of ``stage`` are finished; ``item`` is the one in work."""

    stage: str
    done: int
    total: int
    item: str = ""


Progress: TypeAlias = Callable[[Event], None]


def silent(event: Event) -> None:
    """Show nothing."""


def line_progress(write: Callable[[str], object], every: float = 10.0) -> Progress:
    """A sink for runs without a terminal: a line per ``every`` seconds, with the time left, and one when a stage ends.

    Parameters
    ----------
    write
        Called with each line, without a newline.
    every
        Seconds.
    """
    started: dict[str, float] = {}  # stages in work; two can take turns
    ended: set[str] = set()
    last_line = last_event = time.monotonic()

    def sink(event: Event) -> None:
        nonlocal last_line, last_event
        now = time.monotonic()
        if event.stage in ended and event.done < event.total:  # the same stage once more
            ended.remove(event.stage)
        # The work before the first event of a stage belongs to it, unless that event says that nothing is done.
        elapsed = now - started.setdefault(event.stage, last_event if event.done else now)
        last_event = now
        if event.done >= event.total and event.stage not in ended:
            ended.add(event.stage)
            del started[event.stage]
            write(f"{event.stage} {event.done}/{event.total}, {_clock(elapsed)}")
            last_line = now
        elif now - last_line >= every:
            left = f", {_clock(elapsed * (event.total - event.done) / event.done)} left" if event.done else ""
            write(f"{event.stage} {event.done}/{event.total} {event.item}".rstrip() + left)
            last_line = now

    return sink


def logging_progress(every: float = 10.0) -> Progress:
    """`line_progress` to the logger ``prismaquant``."""
    return line_progress(logging.getLogger("prismaquant").info, every)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
