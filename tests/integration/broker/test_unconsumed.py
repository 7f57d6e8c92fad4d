"""A results queue that nobody consumes is told, before it has filled the broker's disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiormq.abc import AbstractChannel

from tests.support.channel import open_channel
from tests.support.log import RecordingLog
from tests.support.settings import broker_settings
from tests.support.waiting import running
from worker.broker.link import Link
from worker.broker.unconsumed import Unconsumed
from worker.common.clock import Clock

QUEUE = "lcm.outcome.results"


async def nothing(_channel: AbstractChannel, _generation: int) -> None:
    """Prepare nothing."""


class Looks:
    """A clock that ends each pause when the test asks for the next look, and tells when that is over."""

    def __init__(self) -> None:
        self._pauses, self._goes_on = asyncio.Event(), asyncio.Event()
        self.clock = Clock(sleep=self._sleep)

    async def _sleep(self, _seconds: float) -> None:
        self._pauses.set()
        await self._goes_on.wait()
        self._goes_on.clear()

    async def look(self) -> None:
        """Let one more take place, and wait for its end."""
        await self._pauses.wait()
        self._pauses.clear()
        self._goes_on.set()
        await self._pauses.wait()


@asynccontextmanager
async def watched(vhost: str, log: RecordingLog) -> AsyncIterator[Looks]:
    looks = Looks()
    link = Link("publish", broker_settings(vhost), nothing, log, worker="w-1", confirms=False)
    async with running(link.run()), running(Unconsumed(link, QUEUE, log, looks.clock).run()):
        yield looks


def told(log: RecordingLog) -> list[int]:
    return [line["waiting"] for line in log.of("results.unconsumed")]


async def test_results_that_nobody_consumes_are_told(vhost: str) -> None:
    """Not at the first look, since a consumer may just be starting again; then ever more rarely."""
    log = RecordingLog()
    async with open_channel(vhost) as channel, watched(vhost, log) as looks:
        await channel.queue_declare(QUEUE, durable=True)
        await looks.look()
        await looks.look()
        assert told(log) == []
        await channel.basic_publish(b"{}", routing_key=QUEUE)
        for count in (0, 1, 2, 2, 3):
            await looks.look()
            assert told(log) == [1] * count


async def test_a_queue_with_a_consumer_is_not(vhost: str) -> None:
    """However slow that one is; where it has gone, the looks are counted anew."""
    log = RecordingLog()
    async with open_channel(vhost) as channel, watched(vhost, log) as looks:
        await channel.queue_declare(QUEUE, durable=True)
        await channel.basic_qos(prefetch_count=1)
        consumed = await channel.basic_consume(QUEUE, lambda _message: asyncio.sleep(0))
        for _ in range(3):
            await channel.basic_publish(b"{}", routing_key=QUEUE)
        for _ in range(3):
            await looks.look()
        assert told(log) == []
        assert consumed.consumer_tag
        await channel.basic_cancel(consumed.consumer_tag)
        await looks.look()
        assert told(log) == []
        await looks.look()
        assert told(log) == [2]


async def test_a_queue_that_is_gone_ends_nothing(vhost: str) -> None:
    """It is looked for again, and so is one that comes back."""
    log = RecordingLog()
    async with watched(vhost, log) as looks:
        for _ in range(2):
            await looks.look()
        async with open_channel(vhost) as channel:
            await channel.queue_declare(QUEUE, durable=True)
            await channel.basic_publish(b"{}", routing_key=QUEUE)
            for _ in range(2):
                await looks.look()
        assert told(log) == [1]
        assert log.of("broker.lost") == []
