"""The log tells when LCM is what a backlog waits for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.log import RecordingLog
from worker.observability.slowness import Slowness

INTERVAL = 10.0
SLOW: dict[str, Any] = {"exchanges": 16, "seconds": 1.0, "sessions": 2, "waiting": 1}


def interval(
    slowness: Slowness, *, exchanges: int, seconds: float, sessions: int, waiting: int, is_out: bool = False
) -> None:
    """The first exchange of each interval is not answered."""
    for number in range(exchanges):
        slowness.exchanged("answered" if number else "timeout", seconds)
    slowness.look(sessions=sessions, waiting=waiting, is_out=is_out)


def test_a_backlog_that_lcm_keeps_all_sessions_busy_with_is_told() -> None:
    """With how long LCM takes, whether it answers well or not, how often it does not, and what to do."""
    log = RecordingLog()
    interval(Slowness(log, INTERVAL), **SLOW)
    [line] = log.of("lcm.slow")
    assert (line["lcm_ms"], line["exchanges"], line["unanswered"]) == (1000, 16, 1)
    assert (line["sessions"], line["waiting"]) == (2, 1)
    assert "lcm.sessions" in line["remedy"]


@pytest.mark.parametrize("other", [{"exchanges": 15}, {"seconds": 0.9}, {"sessions": 3}, {"waiting": 0}])
def test_where_a_session_is_idle_at_times_or_nobody_waits_nothing_is_told(other: dict[str, Any]) -> None:
    """Much work that is done at once is no backlog."""
    log = RecordingLog()
    interval(Slowness(log, INTERVAL), **SLOW | other)
    assert log.of("lcm.slow") == []


@pytest.mark.parametrize("other", [{"exchanges": 0, "sessions": 0}, {"sessions": 0}, {"is_out": True}])
def test_without_sessions_lcm_is_not_slow_but_away(other: dict[str, Any]) -> None:
    """Pitfall: no session at all is busy all the time; more sessions, as the remedy says, are no help in an outage."""
    log = RecordingLog()
    interval(Slowness(log, INTERVAL), **SLOW | other)
    assert log.of("lcm.slow") == []


def test_intervals_in_a_row_are_told_ever_more_rarely() -> None:
    """The first, second, fourth and eighth of ten; after an interval without a backlog, the first again."""
    log = RecordingLog()
    slowness = Slowness(log, INTERVAL)
    for _ in range(10):
        interval(slowness, **SLOW)
    assert len(log.of("lcm.slow")) == 4
    interval(slowness, **SLOW | {"exchanges": 0})
    interval(slowness, **SLOW)
    assert len(log.of("lcm.slow")) == 5
