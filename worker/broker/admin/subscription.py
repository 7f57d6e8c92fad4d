"""A queue of one run's own on the results exchange, which keeps its results while the connection is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelAccessRefused

from worker.broker.bytes_in_hand import BytesInHand, limit_for
from worker.broker.connection import broker_call, means_loss, text_of
from worker.broker.declare import declare
from worker.broker.link import Link
from worker.broker.topology import KEPT, Binding, Queue, Topology
from worker.contract.errors import BrokerAway, TopologyError
from worker.observability.log import Log
from worker.settings import BrokerSettings

KEPT_HOURS = 24
"""How long the queue outlives a run that ended before all of its results had come."""

_PREFETCH = 500
_DELETE_TIMEOUT = 5.0

Handler = Callable[[list[bytes]], Awaitable[None]]
"""Is given the bodies of some results, which are acknowledged once it has returned."""


class Subscription:
    """Passes the results of some routes to a handler.

    The queue is a durable quorum queue, as all that hold results are. It is neither exclusive nor auto-delete, since
    such a queue is deleted with its connection. While it exists, the results of these routes are routable; without
    it, and without the common results queue, a worker would have to hold them.

    Args:
        settings: which broker.
        topology: names the exchange for results.
        log: is given the events of the connection.
        handle: is given the results.
        queue: the name of the queue.
        routes: the routes of the jobs whose results are wanted.
        name: the connection's.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        topology: Topology,
        log: Log,
        handle: Handler,
        *,
        queue: str,
        routes: Iterable[str],
        name: str,
    ) -> None:
        self.queue = queue
        arguments = {"x-expires": KEPT_HOURS * 3600 * 1000, **KEPT}
        bindings = tuple(Binding(topology.results, queue, f"result.*.{route}") for route in sorted(routes))
        self._topology = replace(topology, exchanges=(), queues=(Queue(queue, arguments),), bindings=bindings)
        self.link = Link("results", settings, self._prepare, log, worker=name, confirms=False)
        self._handle = handle
        # Anybody may publish results, of the broker's largest size.
        self._bytes = BytesInHand(self.link.read, limit_for(_PREFETCH))
        self._waiting: asyncio.Queue[tuple[AbstractChannel, DeliveredMessage]] = asyncio.Queue()

    async def run(self) -> None:
        """Pass on results until cancelled. Raises what the handler raised, and TopologyError."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.link.run())
            group.create_task(self._pass_on())

    async def delete(self) -> None:
        """Delete the queue, if the broker is there; else it expires."""
        if not self.link.is_up:
            return
        self.link.read(on=True)
        with suppress(BrokerAway):
            async with broker_call(_DELETE_TIMEOUT):
                await (await self.link.channel()).queue_delete(self.queue)

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
        await channel.basic_qos(prefetch_count=_PREFETCH)

        async def receive(message: DeliveredMessage) -> None:
            self._take(channel, message)

        await channel.basic_consume(self.queue, receive)

    def _take(self, channel: AbstractChannel, message: DeliveredMessage) -> None:
        self._waiting.put_nowait((channel, message))
        self._bytes.took(len(message.body))

    async def _pass_on(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            await self._handle([message.body for _, message in batch])
            self._bytes.left(sum(len(message.body) for _, message in batch))
            # A batch may hold deliveries of several channels. Only the last of these can still be open, and all that it
            # delivered up to this tag has been handled.
            channel, last = batch[-1]
            await self._acknowledge(channel, last.delivery_tag or 0)

    async def _acknowledge(self, channel: AbstractChannel, tag: int) -> None:
        """Acknowledge everything up to this tag; where the channel is closed, the broker delivers it again."""
        try:
            with suppress(RuntimeError):
                await channel.basic_ack(tag, multiple=True, wait=False)
        except BaseException as error:
            if not means_loss(error):
                raise
