"""Takes results off their queue, and tells when so many have come."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiormq
from aiormq.abc import DeliveredMessage

from tests.benchmarks.jobs import Books


class Collector:
    """The results: how many have come, the bodies that nobody has taken yet, and when each job's came.

    `times` are those of the system's monotonic clock, in the order of the results.
    """

    def __init__(self) -> None:
        self.count = 0
        self.bodies: list[bytes] = []
        self.times: list[float] = []
        self._calls: deque[tuple[int, Callable[[], object]]] = deque()

    def on(self, count: int, call: Callable[[], object]) -> None:
        """Call this when so many results have come, at the moment of the last; the lower counts first."""
        self._calls.append((count, call))

    async def reached(self, count: int) -> None:
        """Wait until so many results have come."""
        if self.count < count:
            here = asyncio.Event()
            self.on(count, here.set)
            await here.wait()

    def hand_over(self, books: Books) -> None:
        """Enter the results into the books, and keep them no longer."""
        for body in self.bodies:
            books.add(body)
        self.bodies.clear()

    async def take(self, message: DeliveredMessage) -> None:
        self.count += 1
        self.times.append(time.monotonic())
        self.bodies.append(message.body)
        while self._calls and self._calls[0][0] <= self.count:
            self._calls.popleft()[1]()


@asynccontextmanager
async def collecting(url: str, queue: str) -> AsyncIterator[Collector]:
    """Give a collector that consumes a queue until the end of the context."""
    collector = Collector()
    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel()
        await channel.basic_consume(queue, collector.take, no_ack=True)
        yield collector
    finally:
        await connection.close()
