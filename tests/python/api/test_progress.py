"""Progress without a terminal: few lines, each of which says something."""

from __future__ import annotations

import logging
import time

import pytest

from prismaquant.progress import Event, line_progress, logging_progress, silent


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch):
    """Sets the clock."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def at(seconds: float) -> None:
        nonlocal now
        now = 1000.0 + seconds

    return at


def test_a_line_per_ten_seconds_with_the_time_left(at) -> None:
    lines: list[str] = []
    sink = line_progress(lines.append)
    for second in range(1, 41):
        at(second)
        sink(Event("price", second, 100, f"unit {second}"))
    assert lines == [
        "price 10/100 unit 10, 0:01:30 left",
        "price 20/100 unit 20, 0:01:20 left",
        "price 30/100 unit 30, 0:01:10 left",
        "price 40/100 unit 40, 0:01:00 left",
    ]


def test_the_end_of_a_stage_once_and_the_next_stage_from_there(at) -> None:
    lines: list[str] = []
    sink = line_progress(lines.append)
    at(3)
    sink(Event("forward", 1, 2))
    at(5)
    sink(Event("forward", 2, 2))
    sink(Event("forward", 2, 2))
    at(3605)
    sink(Event("head", 7, 7, "last"))
    assert lines == ["forward 2/2, 0:00:05", "head 7/7, 1:00:00"]


def test_stages_that_take_turns(at) -> None:
    lines: list[str] = []
    sink = line_progress(lines.append)
    for second in range(6):
        at(second)
        sink(Event("backward", second + 1, 6))
        at(second + 0.5)
        sink(Event("price", 2 * (second + 1), 12))
    assert lines == ["backward 6/6, 0:00:05", "price 12/12, 0:00:06"]


def test_nothing_is_known_before_the_first_step(at) -> None:
    lines: list[str] = []
    sink = line_progress(lines.append)
    at(11)
    sink(Event("evaluate", 0, 16, "loading"))
    assert lines == ["evaluate 0/16 loading"]


def test_a_stage_that_is_run_again(at) -> None:
    lines: list[str] = []
    sink = line_progress(lines.append)
    for start in (0, 7):
        at(start)
        sink(Event("export", 0, 2))
        at(start + 2)
        sink(Event("export", 2, 2))
    assert lines == ["export 2/2, 0:00:02", "export 2/2, 0:00:02"]


def test_a_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="prismaquant"):
        logging_progress()(Event("export", 1, 1, "100 %s"))
    assert caplog.messages == ["export 1/1, 0:00:00"]
    assert silent(Event("export", 1, 1)) is None
