"""The log tells when LCM is what a backlog waits for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.log import RecordingLog
from worker.contract.disposition import Disposition, Ending
from worker.contract.lookup import ExchangeTiming
from worker.observability.slowness import Slowness

INTERVAL = 10.0
SLOW: dict[str, Any] = {"jobs": 16, "seconds": 1.0, "sessions": 2, "waiting": 1}


def interval(slowness: Slowness, *, jobs: int, seconds: float, sessions: int, waiting: int) -> None:
    for _ in range(jobs):
        slowness(Disposition(Ending.FAILED, exchanges=1, last_exchange=ExchangeTiming(1, 1, seconds)))
    slowness.look(sessions=sessions, waiting=waiting)


def test_a_backlog_that_lcm_keeps_all_sessions_busy_with_is_told() -> None:
    """With how long LCM takes, whether it answers well or not, and what to do."""
    log = RecordingLog()
    interval(Slowness(log, INTERVAL), **SLOW)
    [line] = log.of("lcm.slow")
    assert (line["lcm_ms"], line["exchanges"], line["sessions"], line["waiting"]) == (1000, 16, 2, 1)
    assert "lcm.sessions" in line["remedy"]


@pytest.mark.parametrize("other", [{"jobs": 15}, {"seconds": 0.9}, {"sessions": 3}, {"waiting": 0}])
def test_where_a_session_is_idle_at_times_or_nobody_waits_nothing_is_told(other: dict[str, Any]) -> None:
    """Much work that is done at once is no backlog."""
    log = RecordingLog()
    interval(Slowness(log, INTERVAL), **SLOW | other)
    assert log.of("lcm.slow") == []


def test_jobs_that_made_no_exchange_say_nothing() -> None:
    """Another job's exchange brought their results; nor is an interval without any slow, for all that wait."""
    log = RecordingLog()
    slowness = Slowness(log, INTERVAL)
    for _ in range(20):
        slowness(Disposition(Ending.SUCCEEDED, exchanges=0, last_exchange=ExchangeTiming(1, 1, 1.0)))
    slowness.look(sessions=0, waiting=4)
    assert log.of("lcm.slow") == []


def test_intervals_in_a_row_are_told_ever_more_rarely() -> None:
    """The first, second, fourth and eighth of ten; after an interval without a backlog, the first again."""
    log = RecordingLog()
    slowness = Slowness(log, INTERVAL)
    for _ in range(10):
        interval(slowness, **SLOW)
    assert len(log.of("lcm.slow")) == 4
    interval(slowness, **SLOW | {"jobs": 0})
    interval(slowness, **SLOW)
    assert len(log.of("lcm.slow")) == 5
