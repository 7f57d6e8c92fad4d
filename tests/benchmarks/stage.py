"""The broker of a run, with the worker's exchanges and queues, and the jobs that are put into it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import aiormq
from aiormq import spec

from tests.benchmarks.collector import Collector, collecting
from tests.benchmarks.jobs import Batch
from tests.support.channel import depth
from tests.support.settings import broker_settings
from worker.broker.declare import declare
from worker.broker.topology import JOB_KEY, topology_of
from worker.sandbox.node import Node

_IN_FLIGHT = 500  # publishes that wait for their confirm


class Stage:
    """A node with the worker's topology in the vhost of `url`; `staged` gives one that is connected.

    `repeats` counts the results that came beside the first of their job, as delivery at least once allows.
    """

    def __init__(self, node: Node, url: str) -> None:
        self.node = node
        self.url = url
        self._topology = topology_of(broker_settings(url))
        self.repeats = 0
        self._next = 0

    async def connect(self) -> None:
        """Open a connection of this stage's own, and declare what is missing; again after a restart of the node."""
        self._connection = await aiormq.connect(self.url)
        self._channel = await self._connection.channel()
        await declare(self._channel, self._topology)

    async def close(self) -> None:
        await self._connection.close()

    def batch(self, count: int, *, accounts: int = 0) -> Batch:
        """Return so many jobs that were never published, for so many accounts; 0: each has its own."""
        self._next += count
        return Batch(self._next - count, count, accounts)

    async def publish(self, count: int, *, accounts: int = 0) -> Batch:
        """Publish such jobs, and wait until the broker has confirmed them."""
        batch = self.batch(count, accounts=accounts)
        await self.put(batch.bodies())
        return batch

    async def put(self, bodies: Iterable[bytes]) -> None:
        """Publish the bodies of jobs, and wait until the broker has confirmed them."""
        waiting: list[bytes] = []
        for body in bodies:
            waiting.append(body)
            if len(waiting) == _IN_FLIGHT:
                await asyncio.gather(*map(self.put_one, waiting))
                waiting.clear()
        await asyncio.gather(*map(self.put_one, waiting))

    async def put_one(self, body: bytes) -> None:
        """Publish the body of one job, and wait until the broker has confirmed it."""
        await self._channel.basic_publish(
            body,
            exchange=self._topology.jobs,
            routing_key=JOB_KEY,
            properties=spec.Basic.Properties(delivery_mode=2),
        )

    async def left(self) -> int:
        """Return how many jobs wait in their queue, those that a consumer holds not counted."""
        return await depth(self._channel, self._topology.jobs)

    async def renew(self) -> None:
        """Make the queues for jobs and results anew.

        What a process held when it was ended would return to its queue a moment after that was emptied.
        """
        for queue in (self._topology.jobs, self._topology.results):
            await self._channel.queue_delete(queue)
        await declare(self._channel, self._topology)

    @asynccontextmanager
    async def collecting(self) -> AsyncIterator[Collector]:
        """Give a collector of results."""
        async with collecting(self.url, self._topology.results) as collector:
            yield collector


@asynccontextmanager
async def staged(node: Node, url: str) -> AsyncIterator[Stage]:
    """Give a stage on a node that runs."""
    stage = Stage(node, url)
    await stage.connect()
    try:
        yield stage
    finally:
        await stage.close()
