"""Browses a queue of dead letters or parked results: reads it all, takes some off, returns the others in order.

How the order is kept (observed on RabbitMQ 3.10): messages that were fetched or returned one by one go back into a
quorum queue in any order; those that a consumer holds when its channel closes go back in their old order. So a
browser holds the whole queue at once, with consumers whose prefetch adds up to its length, and closes the channel at
the end. One consumer with prefetch 0 would hold 2,000 messages. The broker keeps the order for up to 32 consumers of a
channel, so the order is certain up to two million messages; in a longer queue only the order is at risk.

Unacknowledged messages stay at the broker. Only a few bodies are in memory here, since the socket is not read while
they wait to be processed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from aiormq import spec
from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import ChannelAccessRefused

from worker.broker.admin.calls import connected
from worker.broker.admin.dead_letter import Ours
from worker.broker.connection import Connection, broker_call, text_of
from worker.broker.declare import verify_entity
from worker.broker.delivery import delivery_of, own_users
from worker.broker.topology import Queue, topology_of
from worker.common.tasks import cancel, start
from worker.contract.errors import BrokerAway, TopologyError
from worker.contract.message import Delivery
from worker.settings import BrokerSettings

_CALL_TIMEOUT = 30.0
_IDLE_TIMEOUT = 10.0
_MAX_PREFETCH = 65_535
_MAX_WAITING = 100
_MAX_BYTES = 8 * 1024 * 1024


class Browser:
    """Goes through the queue once. What is not acknowledged goes back, in its order, when the channel closes.

    `total` is the number of messages that the queue held at the start, `other_consumers` the number of its consumers
    then, `seen` the number of messages that `deliveries` has yielded.
    """

    def __init__(self, connection: Connection, channel: Channel, queue: str) -> None:
        self.total = 0
        self.other_consumers = 0
        self.seen = 0
        self._connection = connection
        self._channel = channel
        self._queue = queue
        self._waiting: deque[Delivery] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._paused = self._stopped = False

    @property
    def lost(self) -> asyncio.Future[Any]:
        """Done when the channel is closed; the broker then returns all that it held."""
        return self._channel.closing

    async def start(self, *, prefetch: int = _MAX_PREFETCH) -> None:
        """Consume everything that is in the queue now, with as many consumers as it takes."""
        declared = await self._channel.queue_declare(self._queue, passive=True)
        self.total, self.other_consumers = declared.message_count or 0, declared.consumer_count or 0
        if not self.total:
            await self._confirm_empty()
            return
        held = min(prefetch, self.total)
        await self._channel.basic_qos(prefetch_count=held)
        # The broker returns what consumers hold in the order of their tags.
        first, *more = [f"browse-{number:06}" for number in range(-(-self.total // held))]
        await self._channel.basic_consume(self._queue, self._receive, consumer_tag=first)
        for tag in more:
            # With nowait: the reply would come behind all deliveries to the first consumer, most of which wait unread.
            self._channel.consumers[tag] = self._receive
            await self._channel.rpc(spec.Basic.Consume(queue=self._queue, consumer_tag=tag, nowait=True))

    async def _confirm_empty(self) -> None:
        """Confirm a count of 0 with `basic.get`: a queue without a reachable leader reports 0 messages, too."""
        found = await self._channel.basic_get(self._queue)
        if not isinstance(found.delivery, spec.Basic.GetEmpty):
            raise BrokerAway(
                f"the broker can't say how many messages {self._queue} holds: it is busy, or the queue has no leader;"
                " try again"
            )

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """Yield each message that was in the queue at the start, once.

        Ends early where none arrives for 10 s: then another consumer holds the rest.

        Raises:
            BrokerAway: the channel was lost.
        """
        while self.seen < self.total:
            if not self._waiting and not await self._wait_for_more():
                return
            delivery = self._waiting.popleft()
            self._waiting_bytes -= len(delivery.body)
            self._throttle()
            self.seen += 1
            yield delivery

    async def acknowledge(self, tag: int) -> None:
        """Take a message off the queue; returns before the broker has read that, see `flush`. Raises BrokerAway."""
        async with _reading(self._queue):
            await self._channel.basic_ack(tag, wait=False)

    async def flush(self) -> None:
        """Wait until the broker has processed all acknowledgements; nothing is received any more. Raises BrokerAway."""
        self.stop()
        async with _reading(self._queue):
            await self._channel.basic_qos(prefetch_count=1)

    def stop(self) -> None:
        """Drop what arrives from now on, but keep reading, so that the broker's replies arrive."""
        self._stopped = True
        self._waiting.clear()
        self._waiting_bytes = 0
        self._throttle()

    def loss(self) -> BrokerAway:
        """Return the error to raise once the channel is `lost`."""
        why = "closed" if self.lost.cancelled() else text_of(self.lost.exception())
        return BrokerAway(f"the broker left: {why}")

    async def _receive(self, message: DeliveredMessage) -> None:
        if self._stopped:
            return
        delivery = delivery_of(message)
        self._waiting.append(delivery)
        self._waiting_bytes += len(delivery.body)
        self._arrived.set()
        self._throttle()

    async def _wait_for_more(self) -> bool:
        self._arrived.clear()
        arrival = start(self._arrived.wait())
        try:
            ends = {arrival, self.lost}
            await asyncio.wait(ends, timeout=_IDLE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(arrival)
        if self.lost.done():
            raise self.loss()
        return bool(self._waiting)

    def _throttle(self) -> None:
        """Pause reading from the socket while enough messages wait."""
        full = len(self._waiting) > _MAX_WAITING or self._waiting_bytes > _MAX_BYTES
        # Resume only well below the limit, or nearly every message would pause and resume it.
        if full != self._paused and (full or len(self._waiting) <= _MAX_WAITING // 2):
            self._connection.read(on=not full)
            self._paused = full


def ours_of(settings: BrokerSettings) -> Ours:
    """Return what is ours by the settings; our users are those of `broker.url`."""
    return Ours(topology_of(settings).jobs, own_users(settings.urls))


@asynccontextmanager
async def browse(
    settings: BrokerSettings, queue: str, *, name: str, prefetch: int = _MAX_PREFETCH
) -> AsyncIterator[Browser]:
    """Browse a queue; at the end, all that was not acknowledged goes back.

    Args:
        settings: which broker.
        queue: the queue's name.
        name: the connection's.
        prefetch: how many messages one consumer may hold.

    Raises:
        BrokerAway: no URL answers, or the connection was lost; what was not acknowledged is still in the queue.
        TopologyError: there is no such queue, or this user may not read it.
    """
    async with connected(settings, name=name) as connection:
        async with _reading(queue):
            opened = await connection.open_channel(confirms=False)
            channel = cast(Channel, await opened.get_underlay_channel())
            await _verify(channel, queue)
            browser = Browser(connection, channel, queue)
            await browser.start(prefetch=prefetch)
        try:
            yield browser
        finally:
            browser.stop()


async def _verify(channel: AbstractChannel, queue: str) -> None:
    try:
        await verify_entity(channel, Queue(queue))
    except TopologyError as error:
        raise TopologyError(
            f"queue {queue!r} can't be looked at: {error.__cause__}. See whether broker.prefix and the virtual host in"
            " broker.url are those of the workers, and whether this user may read the queue; `run` declares it"
        ) from error


@asynccontextmanager
async def _reading(queue: str) -> AsyncIterator[None]:
    """A `broker_call` that tells a missing permission from a loss. Raises BrokerAway, and TopologyError for that."""
    async with broker_call(_CALL_TIMEOUT):
        try:
            yield
        except ChannelAccessRefused as error:
            raise TopologyError(f"this user may not read queue {queue!r}: {text_of(error)}") from error
