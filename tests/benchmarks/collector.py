"""Takes results off their queue, and tells when so many have come."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiormq
from aiormq.abc import DeliveredMessage


class Collector:
    """The results so far: their bodies, and when each came by the system's monotonic clock."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.times: list[float] = []
        self._calls: deque[tuple[int, Callable[[], object]]] = deque()

    def on(self, count: int, call: Callable[[], object]) -> None:
        """Call this when so many results have come, at the moment of the last; the lower counts first."""
        self._calls.append((count, call))

    async def reached(self, count: int) -> None:
        """Wait until so many results have come."""
        if len(self.bodies) < count:
            here = asyncio.Event()
            self.on(count, here.set)
            await here.wait()

    async def take(self, message: DeliveredMessage) -> None:
        self.times.append(time.monotonic())
        self.bodies.append(message.body)
        while self._calls and self._calls[0][0] <= len(self.bodies):
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
