"""Progress of long work, as plain events: a stage emits, the caller (command line, notebook, log) shows.

No callback ever crosses into the compiled module; events are sent from Python between units of work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Event", "Progress", "logging_progress", "silent"]


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


def logging_progress(every: float = 10.0) -> Progress:
    """A sink for runs without a terminal: logs a line per ``every`` seconds and one at the end of each stage."""
    logger = logging.getLogger("prismaquant")
    last = 0.0

    def sink(event: Event) -> None:
        nonlocal last
        now = time.monotonic()
        if event.done == event.total or now - last >= every:
            last = now
            logger.info("%s %d/%d %s", event.stage, event.done, event.total, event.item)

    return sink
