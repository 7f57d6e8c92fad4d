"""Jobs are handed out at their rate, and nobody waits for a turn when there are none left."""

from __future__ import annotations

import asyncio

import pytest

from tests.support import RecordingLog, broker_settings
from worker.broker.submission import Submission
from worker.broker.topology import topology_of


async def test_no_lane_waits_for_a_turn_when_no_job_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall: each of 256 lanes waited for a turn of its own after the last job. One does; the others know."""
    settings = broker_settings("amqp://127.0.0.1:1/")
    submission = Submission(settings, topology_of(settings), RecordingLog(), name="t", patience=1.0, rate=5)
    turns: list[bool] = []

    async def take_turn(_stop: asyncio.Event) -> bool:
        turns.append(True)
        await asyncio.sleep(0)
        return True

    monkeypatch.setattr(submission, "_may_go", take_turn)
    jobs, stop = iter(["a", "b"]), asyncio.Event()
    taken = await asyncio.gather(*(submission._next(jobs, stop) for _ in range(50)))
    assert sorted(job for job in taken if job) == ["a", "b"]
    assert len(turns) == 3
