"""The log tells when LCM is what a backlog waits for."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from tests.support.log import RecordingLog
from tests.support.lookup import ANSWER
from worker.contract.disposition import Disposition, Ending
from worker.contract.lookup import ExchangeTiming
from worker.observability.slowness import Slowness

SLOW: dict[str, Any] = {"jobs": 10, "lcm_ms": 50, "waited_ms": 60, "waiting": 4}


def told(log: RecordingLog) -> list[tuple[float, float]]:
    return [(line["lcm_ms"], line["waited_ms"]) for line in log.of("lcm.slow")]


def interval(slowness: Slowness, *, jobs: int, lcm_ms: float, waited_ms: float, waiting: int) -> None:
    result = replace(ANSWER, timing=ExchangeTiming(1, 1, lcm_ms / 1000))
    duration = lcm_ms + waited_ms + 5
    for _ in range(jobs):
        slowness(
            Disposition(
                Ending.SUCCEEDED, exchanges=1, lookup_result=result, publish_ms=5, duration_ms=duration
            )
        )
    slowness.look(waiting=waiting)


def test_a_backlog_for_whose_jobs_there_is_no_session_is_told() -> None:
    """With what LCM takes, what jobs wait, and what to do."""
    log = RecordingLog()
    interval(Slowness(log, 4), **SLOW)
    assert told(log) == [(50, 60)]
    [line] = log.of("lcm.slow")
    assert (line["waiting"], line["sessions"]) == (4, 4)
    assert "lcm.sessions" in line["remedy"]


@pytest.mark.parametrize("other", [{"jobs": 9}, {"waited_ms": 50}, {"waiting": 3}])
def test_what_is_no_backlog_is_not_told(other: dict[str, Any]) -> None:
    """Few jobs, LCM that takes as long as they wait, or sessions for all at the end of the interval."""
    log = RecordingLog()
    interval(Slowness(log, 4), **SLOW | other)
    assert told(log) == []


def test_jobs_that_were_asked_for_twice_or_failed_say_nothing() -> None:
    """Their time went into other exchanges and pauses."""
    log = RecordingLog()
    slowness = Slowness(log, 4)
    for _ in range(20):
        slowness(Disposition(Ending.SUCCEEDED, exchanges=2, lookup_result=ANSWER, duration_ms=900))
        slowness(Disposition(Ending.FAILED, exchanges=1, duration_ms=900))
    slowness.look(waiting=4)
    assert told(log) == []


def test_intervals_in_a_row_are_told_ever_more_rarely() -> None:
    """The first, second, fourth and eighth of ten; after an interval without a backlog, the first again."""
    log = RecordingLog()
    slowness = Slowness(log, 4)
    for _ in range(10):
        interval(slowness, **SLOW)
    assert len(told(log)) == 4
    interval(slowness, **SLOW | {"jobs": 0})
    interval(slowness, **SLOW)
    assert len(told(log)) == 5
