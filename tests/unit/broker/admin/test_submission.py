"""Jobs are published at their rate, and nothing waits for the rate when there are none left."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.log import RecordingLog
from tests.support.settings import broker_settings
from worker.broker.admin.submission import Submission
from worker.broker.topology import topology_of


async def test_nothing_waits_for_the_rate_when_no_job_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall: after the last job each of 256 tasks waited for the rate. One does; the others know that it was last."""
    settings = broker_settings("amqp://127.0.0.1:1/")
    submission = Submission(settings, topology_of(settings), RecordingLog(), name="t", max_outage=1.0, rate=5)
    waits: list[bool] = []

    async def wait_for_rate(_stop: asyncio.Event) -> bool:
        waits.append(True)
        await asyncio.sleep(0)
        return True

    monkeypatch.setattr(submission, "_wait_for_rate", wait_for_rate)
    jobs, stop = iter(["a", "b"]), asyncio.Event()
    taken = await asyncio.gather(*(submission._next(jobs, stop) for _ in range(50)))
    assert sorted(job for job in taken if job) == ["a", "b"]
    assert len(waits) == 3
