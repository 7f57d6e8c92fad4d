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
    """The results that have come: how many, their bodies, and when each came by the system's monotonic clock."""

    def __init__(self) -> None:
        self.count = 0
        self.bodies: list[bytes] = []
        self.times: list[float] = []
        self._entered = 0  # of the bodies, into some books
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

    async def complete(self, books: Books) -> None:
        """Wait until each job of these books has a result, and enter all."""
        self.enter(books)
        while books.missing:
            await self.reached(self.count + books.missing)
            self.enter(books)

    def enter(self, books: Books) -> None:
        """Enter the results that were in no books yet."""
        for body in self.bodies[self._entered :]:
            books.add(body)
        self._entered = len(self.bodies)

    def forget(self) -> None:
        """Keep no longer what was entered."""
        del self.bodies[: self._entered], self.times[: self._entered]
        self._entered = 0

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
