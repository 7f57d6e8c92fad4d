"""A queue of one run's own on the results exchange, so that results wait there while its connection is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelAccessRefused

from worker.broker.connection import means_loss, text_of
from worker.broker.declare import declare
from worker.broker.link import Link
from worker.broker.topology import Binding, Queue, Topology
from worker.errors import TopologyError
from worker.settings import BrokerSettings
from worker.telemetry import Log

KEPT_HOURS = 24
"""How long the queue outlives a run that ended before all of its results had come."""

_WINDOW = 500
_DELETE_TIMEOUT = 5.0
# As for the other queues that are looked at: without one, 4.x drops what came back 20 times.
_DELIVERY_LIMIT = 1_000_000

Take = Callable[[list[bytes]], Awaitable[None]]
"""Is given the bodies of some results; what it has returned from is acknowledged."""


class Subscription:
    """Hands over the results that go by some routes.

    The queue is durable and a quorum queue, as all that hold results are; neither exclusive nor auto-delete, since
    such a queue goes with its connection. While it stands, the results of these routes are routable: without it,
    and without the common results queue, a worker would have to hold them.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        topology: Topology,
        log: Log,
        take: Take,
        *,
        queue: str,
        routes: Iterable[str],
        name: str,
    ) -> None:
        self.queue = queue
        expires = {"x-expires": KEPT_HOURS * 3600 * 1000, "x-delivery-limit": _DELIVERY_LIMIT}
        bindings = tuple(Binding(topology.results, queue, f"result.*.{route}") for route in sorted(routes))
        self._topology = replace(topology, exchanges=(), queues=(Queue(queue, expires),), bindings=bindings)
        self.link = Link("results", settings, self._prepare, log, worker=name, confirms=False)
        self._take = take
        self._waiting: asyncio.Queue[tuple[AbstractChannel, DeliveredMessage]] = asyncio.Queue()

    async def run(self) -> None:
        """Hand over results until cancelled. Raises what `take` raised, and TopologyError."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.link.run())
            group.create_task(self._hand_over())

    async def delete(self) -> None:
        """Delete the queue, if the broker is there; else it expires."""
        if not self.link.is_up:
            return
        try:
            async with asyncio.timeout(_DELETE_TIMEOUT):
                await (await self.link.channel()).queue_delete(self.queue)
        except BaseException as error:
            if not isinstance(error, TimeoutError) and not means_loss(error):
                raise

    async def _prepare(self, channel: AbstractChannel, _generation: int) -> None:
        try:
            await declare(channel, self._topology)
        except TopologyError as error:
            if not isinstance(error.__cause__, ChannelAccessRefused):
                raise
            raise TopologyError(
                f"this user may not make the queue {self.queue} for its results ({text_of(error.__cause__)});"
                " it has to configure, write and read it, and to read the results exchange"
            ) from error
        await channel.basic_qos(prefetch_count=_WINDOW)

        async def arrived(message: DeliveredMessage) -> None:
            self._waiting.put_nowait((channel, message))

        await channel.basic_consume(self.queue, arrived)

    async def _hand_over(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            await self._take([message.body for _, message in batch])
            # Of several lives of the link only the last can still be told, and by then these are all it has sent.
            channel, last = batch[-1]
            await self._acknowledge(channel, last.delivery_tag or 0)

    async def _acknowledge(self, channel: AbstractChannel, tag: int) -> None:
        """Acknowledge all up to this one; where the channel is gone, they come once more."""
        try:
            with suppress(RuntimeError):
                await channel.basic_ack(tag, multiple=True, wait=False)
        except BaseException as error:
            if not means_loss(error):
                raise
